import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import sys
from pathlib import Path
from inference.classifier import load
classifier = load(Path(sys.argv[1]), engine=sys.argv[2])
classifier.probabilities(classifier.prepare(Path(sys.argv[3]).read_bytes())[None])
loaded = {"tensorflow", "keras", "prefect", "dvc", "pandas", "matplotlib", "scipy", "openvino_telemetry"}
print([name for name in loaded if sys.modules.get(name)])
"""


@pytest.mark.parametrize("engine", ["openvino", "litert"])
def test_photos_are_answered_without_tensorflow_and_without_noise(
    engine: str, exports: Path, predicted: list[tuple[bytes, list[float]]], tmp_path: Path
) -> None:
    photo = tmp_path / "photo"
    photo.write_bytes(predicted[0][0])
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(exports), engine, str(photo)], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
