import csv
import io
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner, Result

from flows.commands.predict import predict_command
from inference import models
from tasks.stage import FACTS_DIGEST, PawlineError, facts_digest
from tests.inference.conftest import colours as colours  # the fixture
from tests.inference.running import picture

COMMAND = [sys.executable, "-c", "import typer; from flows.commands.predict import *; typer.run(predict_command)"]
app = typer.Typer()
app.command(name="predict")(predict_command)
app.callback()(lambda: None)


@pytest.fixture
def folder(workdir: Path, colours: Path) -> Path:
    """The current folder, with photos and an export in it."""
    shutil.copytree(colours, workdir / "export")
    (workdir / "photos").mkdir()
    for name in ("red", "green", "blue"):
        (workdir / f"photos/{name}.png").write_bytes(picture(name))
    return workdir


def predict(*arguments: str, stdin: bytes = b"") -> Result:
    return CliRunner().invoke(app, ["predict", "--model", "export", *arguments], input=stdin)


def refusal(*arguments: str, stdin: bytes = b"") -> str:
    result = predict(*arguments, stdin=stdin)
    assert isinstance(result.exception, PawlineError), result.output
    assert "\n" not in str(result.exception)
    return str(result.exception)


def test_scripts_get_csv_and_the_summary_apart(folder: Path) -> None:
    result = predict("photos", "photos/red.png")
    assert result.exit_code == 0
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [(row["path"], row["class"]) for row in rows] == [
        ("photos/blue.png", "blue"),
        ("photos/green.png", "green"),
        ("photos/red.png", "red"),
        ("photos/red.png", "red"),
    ]
    assert result.stderr == "2 red, 1 green, 1 blue (openvino, float32)\n"
    assert predict("--csv", "-", "photos").stdout.splitlines() == result.stdout.splitlines()[:-1]


def test_unreadable_photos_are_listed_and_do_not_stop_the_rest(folder: Path) -> None:
    (folder / "photos/broken.png").write_bytes(picture("red")[:-30])
    result = predict("--json", "photos", "none.jpg", "photos/red.png")
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.exit_code == 3
    assert [(row["class"], row["reason"]) for row in rows] == [
        ("blue", None),
        (None, "truncated"),
        ("green", None),
        ("red", None),
        (None, "missing"),
        ("red", None),
    ]
    assert result.stderr == "2 red, 1 green, 1 blue, 2 could not be read (openvino, float32)\n"


def test_standard_input_is_an_image_or_a_list(folder: Path) -> None:
    [row] = csv.DictReader(io.StringIO(predict("-", stdin=picture("green")).stdout))
    assert (row["path"], row["class"]) == ("-", "green")
    result = predict("-", stdin=b"photos/blue.png\nphotos/red.png\n")
    assert [row["class"] for row in csv.DictReader(io.StringIO(result.stdout))] == ["blue", "red"]


def test_photos_are_sorted_and_answers_kept_in_files(folder: Path) -> None:
    (folder / "photos/text.jpg").write_text("text")
    options = ["--sort", "photos/sorted", "--csv", "a.csv", "--parquet", "a.parquet", "--unsure-below", "0.8"]
    (folder / "photos/gray.png").write_bytes(picture("gray"))
    for _ in range(2):  # copies in a folder of the photos are no photos the next time
        assert predict(*options, "photos").exit_code == 3
    copies = sorted(str(path.relative_to("photos/sorted")) for path in Path("photos/sorted").rglob("*.*"))
    assert copies == ["blue/blue.png", "green/green.png", "red/red.png", "unreadable/text.jpg", "unsure/gray.png"]
    classes = [row["class"] for row in pq.read_table("a.parquet").to_pylist()]
    assert classes == ["blue", "unsure", "green", "red", None]
    with Path("a.csv").open(newline="") as file:
        assert [row["class"] or None for row in csv.DictReader(file)] == classes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.jpg"], "none.jpg: no such file or folder: check the path"),
        (["export/export.json"], "export/export.json: Pillow: none of JPEG, PNG,"),
        (["no/*.jpg"], "no/*.jpg: nothing matches this pattern: check the pattern"),
        (["http://127.0.0.1:9/x"], "http://127.0.0.1:9/x: no connection: check the address and the network"),
        (["ftp://127.0.0.1/x"], "ftp://127.0.0.1/x: only http:// and https:// are fetched: download it first, or give"),
        (["file:///x.jpg"], "file:///x.jpg: only http:// and https:// are fetched: download it first, or give"),
        (["none.jpg", "no/*.jpg"], "none of 2 could be read; the first is none.jpg: no such file"),
        (["-"], "-: 0 bytes: "),
        (["-", "-"], "standard input can be read once"),
        (["--json", "--csv", "-", "photos"], "--json and --csv - both print"),
        (["--parquet", "-", "photos"], "--parquet - would print bytes: name a file"),
        (["--csv", "a", "--parquet", "a", "photos"], "--csv and --parquet are both to write a: name two files"),
        (["--sort", "photos", "photos"], "--sort photos is a folder of the photos"),
        (["--explain", "export/export.json", "photos"], "--explain export/export.json is a file"),
        (["--csv", "photos", "photos"], "--csv photos is a folder: name a file in it"),
        (["--parquet", "no/a.parquet", "photos"], "--parquet no/a.parquet: there is no folder no: make it"),
        (["--engine", "litert", "photos"], "export has no export for litert: it has openvino"),
    ],
)
def test_what_is_wrong_gets_one_line(arguments: list[str], message: str, folder: Path) -> None:
    assert message in refusal(*arguments)


@pytest.mark.parametrize("option", ["--csv", "--parquet"])
def test_photos_are_not_overwritten(option: str, folder: Path) -> None:
    """`--csv photos/*.png`, once the shell is through with it."""
    content = Path("photos/blue.png").read_bytes()
    refused = "is one of the photos and would be overwritten: name the file to write"
    assert refusal(option, "photos/blue.png", "photos/red.png") == f"{option} photos/blue.png {refused}"
    assert Path("photos/blue.png").read_bytes() == content
    Path("photo.heic").write_bytes(b"heic")
    assert refusal(option, "photo.heic", "./photo.heic", "photos") == f"{option} photo.heic {refused}"
    assert Path("photo.heic").read_bytes() == b"heic"


def test_an_empty_folder_and_a_corrupted_export_get_one_line(folder: Path) -> None:
    (folder / "empty").mkdir()
    assert refusal("empty").startswith("empty: holds no file named as an image: ")
    weights = folder / "export/openvino/classifier.bin"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert "is not what was exported (" in refusal("photos")
    assert models.find("export", folder).export_dir == folder / "export"


def test_where_a_file_is_named_nothing_is_printed_but_the_summary(folder: Path) -> None:
    for options in (["--csv", "a.csv"], ["--parquet", "a.parquet"]):
        result = predict(*options, "photos")
        assert (result.stdout, result.stderr) == ("", "1 red, 1 green, 1 blue (openvino, float32)\n")
    assert predict("--parquet", "a.parquet", "--csv", "-", "photos").stdout.startswith("path,class,")
    assert predict("--csv", "a.csv", "--json", "photos").stdout.startswith('{"path": ')
    with Path("a.csv").open(newline="") as file:
        assert [row["class"] for row in csv.DictReader(file)] == ["blue", "green", "red"]


def test_a_share_is_no_percentage(folder: Path) -> None:
    said = "--unsure-below {}: give a share between 0 and 1 ({})"
    assert refusal("--unsure-below", "90", "photos") == said.format("90", "0.9, not 90")
    for wrong in ("-0.5", "nan", "900"):
        assert refusal("--unsure-below", wrong, "photos") == said.format(wrong, "0.9")
    assert predict("--unsure-below", "1", "photos").stderr.startswith("3 unsure")


def test_classes_that_would_share_a_folder_are_refused(folder: Path) -> None:
    facts = json.loads(Path("export/export.json").read_text()) | {"labels": ["red", "unsure", "unreadable"]}
    Path("export/export.json").write_text(json.dumps(facts | {FACTS_DIGEST: facts_digest(facts)}))
    assert "has a class named unsure, which would not be told" in refusal("--unsure-below", "0.9", "photos")
    assert refusal("--sort", "sorted", "photos").startswith("--sort: the class unreadable would share a folder with")
    assert not Path("sorted").exists()
    assert predict("photos").exit_code == 0


def test_what_is_no_file_is_listed_and_holds_nothing_up(folder: Path) -> None:
    os.mkfifo("photos/pipe.jpg")
    Path("secret").write_text("secret")
    Path("photos/link.jpg").symlink_to("../secret")
    result = predict("photos", "photos/pipe.jpg", "/dev/null", "--sort", "sorted")
    rows = [(row["path"], row["reason"], row["evidence"]) for row in csv.DictReader(io.StringIO(result.stdout))]
    pipe = ("photos/pipe.jpg", "not_a_file", "not a regular file")
    assert [row for row in rows if row[1]] == [
        pipe,
        pipe,
        ("/dev/null", *pipe[1:]),
    ]
    assert result.exit_code == 3
    assert "symbolic links left out of folders: 1 (name them to have them followed)\n" in result.stderr
    assert not Path("sorted/unreadable").exists(), "where a link leads is not copied"
    assert "pipe.jpg: not a regular file: give the photo as a file, or - and" in refusal("photos/pipe.jpg")


def test_names_that_are_not_utf_8_are_spelled_the_same_everywhere(folder: Path) -> None:
    Path(os.fsdecode(b"caf\xe9.png")).write_bytes(picture("red"))
    command = [*COMMAND, "--model", "export", os.fsdecode(b"caf\xe9.png")]
    for encoding in ("utf-8", "ascii"):
        environment = os.environ | {"PYTHONIOENCODING": encoding}
        done = subprocess.run(command, env=environment, capture_output=True, check=True)
        assert done.stdout.splitlines()[1].startswith(rb"caf\xe9.png,red,")


def test_a_password_is_never_shown(folder: Path) -> None:
    """Nor where the address is read from a list, is no address, or has something else wrong with it."""
    addresses = [
        "http://me:hush@127.0.0.1:9/x.jpg",
        " http://me:hush@127.0.0.1:9/x.jpg",
        "http://me:hu/sh?hush@127.0.0.1:9/[x].jpg",
        "ftp://me:hush@127.0.0.1/x.jpg",
        "http://me:hush@127.0.0.1:9/" + "x" * 70_000,
    ]
    options = ["--csv", "a.csv", "--parquet", "a.parquet", "--sort", "sorted"]
    result = predict("--json", *options, *addresses[:-1], "-", "photos/red.png", stdin="\n".join(addresses).encode())
    assert result.exit_code == 3
    assert len(result.stdout.splitlines()) == 10
    assert result.stdout.count("://***@127.0.0.1") == 9
    spelled = result.output + Path("a.csv").read_text() + str(pq.read_table("a.parquet").to_pylist())
    for first in addresses:
        error = predict(first).exception
        assert isinstance(error, PawlineError)
        spelled += str(error)
    assert "://***@127.0.0.1" in spelled
    assert not {"me:", "hu", "sh@"} & set(re.findall("me:|hu|sh@", spelled))


def test_people_get_a_table(folder: Path) -> None:
    main, terminal = pty.openpty()
    command = [*COMMAND, "--model", "export", "photos", "none\x1b31m.jpg"]
    done = subprocess.run(command, stdout=terminal, stderr=terminal, env=os.environ | {"TERM": "dumb"}, check=False)
    os.close(terminal)
    shown = os.read(main, 1 << 16).decode()
    os.close(main)
    assert done.returncode == 3
    for line in ("class      sure  photo\r\n", " %  photos/blue.png\r\n", "none\\x1b31m.jpg: missing (no such file"):
        assert line in shown
    assert "1 red, 1 green, 1 blue, 1 could not be read (openvino, float32)\r\n" in shown
    assert "\x1b31m" not in shown


def test_ctrl_c_ends_it_and_leaves_no_half_file(folder: Path) -> None:
    command = [*COMMAND, "--model", "export", "--json", "--csv", "a.csv", "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"photos/red.png\n" * 4000)  # which a pipe takes, whether it is read or not
        process.stdin.flush()
        assert process.stdout.readline().startswith(b'{"path": ')  # it is at work
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err == b"interrupted: what was answered so far stands; files are written only at the end\n"
    assert not list(folder.glob("*a.csv"))


def test_what_is_named_on_an_open_pipe_is_answered_at_once(folder: Path) -> None:
    command = [*COMMAND, "--model", "export", "--json", "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        giving_up = threading.Timer(20, process.kill)
        giving_up.start()
        for name in ("red", "green"):
            process.stdin.write(f"photos/{name}.png\n".encode())
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["class"] == name
        process.send_signal(signal.SIGINT)  # which waits for no line either
        process.wait()
        giving_up.cancel()
        assert process.stderr is not None
        assert process.stderr.read().startswith(b"interrupted: ")
    assert process.returncode == 130


def test_help_says_the_exit_codes_and_where_unreadable_photos_go() -> None:
    said = CliRunner().invoke(app, ["predict", "--help"]).stdout
    assert "3 some could not be read" in said
    assert "DIR/unreadable/" in said
