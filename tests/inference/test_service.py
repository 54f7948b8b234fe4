from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from inference import classifier
from inference.service_limits import MAX_FILES
from tests.inference.running import DIGEST, LABELS, Running, make_export, picture, running

BOUNDARY = "multipart/form-data; boundary=b"
FILE_PART = b'--b\r\nContent-Disposition: form-data; name="file"; filename="%s"\r\n\r\n%s\r\n--b--\r\n'
RAW = "application/octet-stream"


@pytest.fixture(scope="module")
def export_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_export(tmp_path_factory.mktemp("colours"))


@pytest.fixture(scope="module")
def service(export_dir: Path) -> Iterator[Running]:
    with running(export_dir) as service:
        yield service


@pytest.fixture(scope="module")
def http(service: Running) -> Iterator[httpx.Client]:
    with service.client() as http:
        yield http


def problem(response: httpx.Response) -> tuple[int, str]:
    """Return the status and the reason of a refusal, once it is known to be one line."""
    error = response.json()["error"]
    assert error["message"]
    assert "\n" not in error["message"]
    return response.status_code, error["reason"]


def test_each_file_of_a_form_is_answered_in_order(http: httpx.Client) -> None:
    sent = [("file", (f"{colour}.png", picture(colour))) for colour in ("blue", "red")]
    told = http.post("/predict", files=[*sent, ("file", ("no.txt", b"text"))]).raise_for_status().json()
    assert told["model"] == {
        "name": "colours",
        "digest": DIGEST,
        "engine": "openvino",
        "precision": "float32",
        "labels": LABELS,
    }
    assert [(answer["name"], answer.get("label")) for answer in told["answers"]] == [
        ("blue.png", "blue"),
        ("red.png", "red"),
        ("no.txt", None),
    ]
    assert told["answers"][2]["error"]["reason"] == "not_an_image"
    blue = told["answers"][0]
    assert list(blue["probabilities"]) == LABELS
    assert blue["probability"] == blue["probabilities"]["blue"] == max(blue["probabilities"].values())
    assert sum(blue["probabilities"].values()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("kind", ["image/png", "image/jpeg", RAW, None])
def test_the_body_may_be_the_photo_itself_whatever_it_is_called(http: httpx.Client, kind: str | None) -> None:
    told = http.post("/predict", content=picture("lime"), headers={"content-type": kind} if kind else {}).json()
    assert [(answer["name"], answer["label"]) for answer in told["answers"]] == [(None, "green")]


def test_an_answer_that_is_too_uncertain_is_withheld(export_dir: Path) -> None:
    with running(export_dir, unsure_below=0.9) as service, service.client() as http:
        answers = [http.post("/predict", content=picture(shade)).json()["answers"][0] for shade in ("#f00", "#801070")]
        assert [answer["label"] for answer in answers] == ["red", "unsure"]
        assert answers[1]["probability"] == answers[1]["probabilities"]["red"] < 0.9
        assert service.metric("pawline_images_total", answer="unsure") == 1


@pytest.mark.parametrize(
    ("content", "kind", "expected"),
    [
        (b"GIF? no", RAW, (422, "not_an_image")),
        (b"", RAW, (422, "empty")),
        (picture("red", "JPEG", (400, 400))[:-600], "image/jpeg", (422, "truncated")),
        (picture("red"), "text/plain", (415, "content_type")),
        (b"file=x", "application/x-www-form-urlencoded", (415, "content_type")),
        (picture("red"), "", (415, "content_type")),
        (FILE_PART % (b"a.png", b""), BOUNDARY, (422, "empty")),
        (FILE_PART.replace(b"file", b"photo", 1) % (b"a.png", b"x"), BOUNDARY, (422, "form")),
        (b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nx\r\n--b--\r\n', BOUNDARY, (422, "form")),
        (b"", BOUNDARY, (422, "form")),
        (b"no form", BOUNDARY, (422, "form")),
        (picture("red"), "multipart/form-data", (422, "form")),
        (FILE_PART % (b"a..png", b"x"), BOUNDARY + "; charset=undefined", (422, "form")),
    ],
)
def test_what_is_no_photo_is_refused_in_one_line(
    http: httpx.Client, content: bytes, kind: str, expected: tuple[int, str]
) -> None:
    assert problem(http.post("/predict", content=content, headers={"content-type": kind})) == expected
    assert http.get("/healthz").json()["ready"]


def test_a_request_has_only_so_many_files(http: httpx.Client) -> None:
    files = [("file", ("a.png", picture("red")))] * MAX_FILES
    assert len(http.post("/predict", files=files).json()["answers"]) == MAX_FILES
    assert problem(http.post("/predict", files=[*files, files[0]])) == (422, "form")


def test_several_files_of_which_none_can_be_read_are_one_refusal(http: httpx.Client) -> None:
    response = http.post("/predict", files=[("file", ("a", b"one")), ("file", ("b", b"two"))])
    assert problem(response) == (422, "not_an_image")
    assert "none of 2 files" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("sent", "charset", "shown"),
    [
        (b"<script>alert(1)</script>.png", "", "<script>alert(1)</script>.png"),
        ("Käthe 猫.png".encode(), "", "Käthe 猫.png"),
        (b"\xff\xfe.png", "", "ÿþ.png"),
        (rb"\ud800.png", "; charset=unicode_escape", "?.png"),
        (b"x" * 300, "", "x" * 255),
    ],
)
def test_names_are_given_back_as_text(http: httpx.Client, sent: bytes, charset: str, shown: str) -> None:
    content = FILE_PART % (sent.replace(b"\\", rb"\\"), picture("red"))
    response = http.post("/predict", content=content, headers={"content-type": BOUNDARY + charset})
    assert response.json()["answers"][0]["name"] == shown


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/nothing", 404), ("GET", "/docs", 404), ("GET", "/predict", 405)]
)
def test_other_paths_are_refused_as_json(http: httpx.Client, method: str, path: str, status: int) -> None:
    assert problem(http.request(method, path)) == (status, "request")


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "", "[::1", "2130706433"]
)
def test_a_domain_that_points_here_is_not_served(http: httpx.Client, host: str) -> None:
    for path in ("/", "/healthz", "/metrics", "/openapi.json", "/nothing"):
        assert problem(http.get(path, headers={"host": host})) == (403, "host")
    assert problem(http.post("/predict", content=picture("red"), headers={"host": host})) == (403, "host")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:99", "[::1]:80"])
def test_this_machine_is_served_by_each_of_its_names(http: httpx.Client, host: str) -> None:
    assert http.get("/healthz", headers={"host": host}).status_code == 200


def test_others_may_use_any_name_of_a_service_that_they_can_reach(export_dir: Path) -> None:
    with running(export_dir, hosts=None) as service, service.client() as http:
        assert http.get("/healthz", headers={"host": "pets.example"}).status_code == 200


def test_pages_of_other_sites_cannot_send_or_read(http: httpx.Client) -> None:
    for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)):
        headers = {"sec-fetch-site": site, "origin": "https://evil.example"}
        response = http.post("/predict", content=picture("red"), headers=headers)
        assert response.status_code == status
        assert "access-control-allow-origin" not in response.headers
    for origin, status in (("https://evil.example", 403), ("null", 403), (str(http.base_url).rstrip("/"), 200)):
        assert http.post("/predict", content=picture("red"), headers={"origin": origin}).status_code == status
    assert http.options("/predict", headers={"origin": "https://evil.example"}).status_code == 405


def test_every_answer_is_only_what_it_says(http: httpx.Client) -> None:
    for path in ("/", "/healthz", "/metrics", "/openapi.json", "/nothing"):
        headers = http.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert "unsafe" not in headers["content-security-policy"]
        assert "server" not in headers


def test_no_answer_waits_for_an_acknowledgement(http: httpx.Client) -> None:
    seconds = [http.get("/healthz").elapsed.total_seconds() for _ in range(30)]
    assert min(seconds[10:]) < 0.035, "a delayed acknowledgement takes 40 ms"


def test_openapi_describes_what_can_be_sent_and_what_comes_back(http: httpx.Client) -> None:
    described = http.get("/openapi.json").json()
    assert set(described["paths"]) == {"/predict", "/healthz", "/metrics"}
    predict: dict[str, Any] = described["paths"]["/predict"]["post"]
    assert set(predict["requestBody"]["content"]) == {"multipart/form-data", "image/*", RAW}
    assert {"200", "408", "413", "415", "422", "503"} <= set(predict["responses"])
    schema = predict["responses"]["200"]["content"]["application/json"]["schema"]
    assert schema == {"$ref": "#/components/schemas/Answers"}


def test_what_happened_is_counted(export_dir: Path) -> None:
    with running(export_dir) as service, service.client() as http:
        http.post("/predict", content=picture("red"))
        http.post("/predict", files=[("file", ("a", picture("red"))), ("file", ("b", b"text"))])
        http.post("/predict", content=b"text")
        for path in ("/a", "/b", "/c"):
            http.get(path)
        assert service.metric("pawline_requests_total", path="/predict", status="200") == 2
        assert service.metric("pawline_requests_total", path="/predict", status="422") == 1
        assert service.metric("pawline_requests_total", path="other", status="404") == 3, "no label a path"
        assert service.metric("pawline_request_seconds_count", path="/predict") == 3
        assert service.metric("pawline_images_total", answer="red") == 2
        assert service.metric("pawline_refused_total", reason="not_an_image") == 2
        assert service.metric("pawline_requests_in_flight") == 1, "the one that asks"
        assert service.metric("pawline_model", name="colours", digest=DIGEST) == 1
        assert service.metric("process_resident_memory_bytes") > 1e6


def test_a_failure_is_one_line_and_the_service_goes_on(export_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    loaded = classifier.load(export_dir)
    seconds = iter([0, 1])

    def fails_once(_: object) -> np.ndarray:
        return np.array([[1 // next(seconds), 0, 0]], np.float32)

    with running(export_dir, classifier=replace(loaded, run=fails_once)) as service, service.client() as http:
        response = http.post("/predict", content=picture("red"))
        assert problem(response) == (500, "internal")
        assert "division" not in response.text
        assert http.post("/predict", content=picture("red")).status_code == 200
        assert service.metric("pawline_requests_total", path="/predict", status="500") == 1
    assert "ZeroDivisionError" in caplog.text, "the log says why"
