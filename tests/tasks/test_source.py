"""The first stage: it notices what changed, and stops early when something is wrong."""

import ast
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tasks.params import DataParams, check_params
from tasks.source import main, source
from tasks.stage import PawlineError
from tests.conftest import ROOT

HOSTILE = [
    ("absolute_path", "'/tmp/absolute_escape.jpg' points outside"),
    ("no_images", "holds no images"),
    ("not_a_zip", "neither a zip nor a tar archive"),
    ("one_class", "one class only, 'cat'"),
    ("path_traversal", r"'../../../escaped.jpg' points outside"),
    ("size_bomb", "unpacks to 1,073,741,824 bytes"),
    ("symlink", "link.jpg' is a link or a device"),
    ("truncated", "truncated or damaged"),
]


def write_params(workdir: Path, source_name: str, path: Path | None) -> Path:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    text = text.replace("source: synthetic", f"source: {source_name}", 1)
    out = workdir / "params.yaml"
    out.write_text(text.replace("path: null", f"path: {json.dumps(path and str(path))}", 1), encoding="utf-8")
    return out


def run_source(workdir: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tasks.source"]
    env = {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(workdir / ".user-cache"), "PATH": ""}
    return subprocess.run(command, cwd=workdir, env=env, capture_output=True, text=True, check=False)


def files_below(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file() and ".user-cache" not in path.parts}


@pytest.mark.parametrize(("name", "message"), HOSTILE)
def test_hostile_archives_are_refused_without_a_trace(
    shared_data: Path, workdir: Path, name: str, message: str
) -> None:
    write_params(workdir, "archive", shared_data / "hostile" / f"{name}.zip")
    (workdir / "data").mkdir()
    (workdir / "data/source.json").write_text("earlier")
    before = files_below(workdir)
    with pytest.raises(PawlineError, match=message) as error:
        main([])
    assert "\n" not in str(error.value)
    assert files_below(workdir) == before
    assert (workdir / "data/source.json").read_text() == "earlier"
    assert not Path("/tmp/absolute_escape.jpg").exists()  # noqa: S108


def test_a_refusal_is_one_line_and_exit_code_1(shared_data: Path, workdir: Path) -> None:
    write_params(workdir, "archive", shared_data / "hostile" / "symlink.zip")
    done = run_source(workdir)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: archive ")
    assert done.stderr.count("\n") == 1


def test_bad_parameters_of_any_stage_stop_it(workdir: Path) -> None:
    params = write_params(workdir, "synthetic", None)
    params.write_text(params.read_text().replace("  dropout: 0.2", "  dropuot: 0.2"))
    with pytest.raises(PawlineError, match=r"train_head\.dropuot: did you mean dropout\?"):
        main([])
    assert not (workdir / "data").exists()


def test_real_photos(shared_data: Path, workdir: Path) -> None:
    write_params(workdir, "archive", shared_data / "petimages.zip")
    main([])
    written = Path("data/source.json").read_text()
    facts = json.loads(written)
    assert (facts["source"], facts["files"]) == ("archive", 1317)
    assert str(shared_data) not in written
    assert written == json.dumps(facts, indent=2, sort_keys=True) + "\n"


def test_an_unchanged_folder_gives_the_same_bytes(workdir: Path) -> None:
    for label in ("cat", "dog"):
        (workdir / "photos" / label).mkdir(parents=True)
        (workdir / "photos" / label / "1.jpg").write_bytes(label.encode())
    write_params(workdir, "directory", workdir / "photos")
    main([])
    first = Path("data/source.json").read_bytes()
    (workdir / "photos/cat/1.jpg").touch()
    main([])
    assert Path("data/source.json").read_bytes() == first
    (workdir / "photos/cat/1.jpg").write_bytes(b"caT")
    main([])
    assert Path("data/source.json").read_bytes() != first


def test_damage_to_an_archive_is_found_though_it_was_good_before(workdir: Path) -> None:
    with zipfile.ZipFile("a.zip", "w") as packed:
        packed.writestr("cat/1.jpg", b"meow")
        packed.writestr("dog/1.jpg", b"woof")
    data = DataParams(source="archive", path="a.zip", sha256=None, tfds_name="mnist", synthetic_images=40)
    params = check_params(ROOT / "params.yaml").model_copy(update={"data": data})
    source(source_out=Path("source.json"), weights_out=Path("weights.json"), params=params)
    Path("a.zip").write_bytes(Path("a.zip").read_bytes().replace(b"woof", b"warf"))
    with pytest.raises(PawlineError, match="truncated or damaged"):
        source(source_out=Path("source.json"), weights_out=Path("weights.json"), params=params)


@pytest.mark.parametrize("output", ["sigmoid", "logit"])
def test_one_output_for_five_classes_stops_before_any_other_stage(
    shared_data: Path, workdir: Path, output: str
) -> None:
    committed = check_params(ROOT / "params.yaml")
    data = committed.data.model_copy(update={"source": "archive", "path": str(shared_data / "cat_breeds.zip")})
    head = committed.train_head.model_copy(update={"output": output})
    params = committed.model_copy(update={"data": data, "train_head": head})
    with pytest.raises(PawlineError, match=f"output is '{output}': the source has 5 classes; choose auto or softmax"):
        source(source_out=Path("source.json"), weights_out=Path("weights.json"), params=params)
    assert not Path("source.json").exists()


def test_a_changed_file_of_weights_is_noticed(workdir: Path) -> None:
    committed = check_params(ROOT / "params.yaml")
    weights = committed.backbone.model_copy(update={"source": "file", "path": "weights.h5"})
    params = committed.model_copy(update={"backbone": weights})
    with pytest.raises(PawlineError, match=r"backbone\.path is 'weights\.h5': no such file"):
        source(source_out=Path("source.json"), weights_out=Path("weights.json"), params=params)
    seen = []
    for content in (b"one", b"two", b"one"):
        Path("weights.h5").write_bytes(content)
        source(source_out=Path("source.json"), weights_out=Path("weights.json"), params=params)
        seen.append(Path("weights.json").read_bytes())
    assert seen[0] == seen[2] != seen[1]


def test_it_imports_nothing_slow(workdir: Path) -> None:
    code = "import sys, tasks.source; print(sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    slow = {"numpy", "pandas", "pyarrow", "requests", "PIL", "tensorflow"}
    assert slow.isdisjoint(ast.literal_eval(done.stdout))
