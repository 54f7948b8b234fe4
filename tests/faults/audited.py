"""Runs `source` and `ingest` on archives, and writes down what the process touches: python -m tests.faults.audited

It reads a JSON list of archives from standard input, works in the current folder, and writes `said.json` (what was said
of each, and the paths that were taken) and `touched.json` (what Python's audit hooks saw).
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from tasks import raw
from tasks.ingest import ingest
from tasks.params import check_params
from tasks.source import source
from tasks.stage import PawlineError
from tests.conftest import ROOT

CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link", "os.chmod", "os.truncate")
RUNS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "pickle.find_class", "socket.connect")
RAW = Path("raw")

touched: dict[str, list[str]] = {"read": [], "changed": [], "run": []}


def note(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook (PEP 578)."""
    if event == "open" and isinstance(arguments[0], str | bytes):
        path, mode, flags = arguments
        written = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) if isinstance(flags, int) else "r" not in (mode or "r")
        touched["changed" if written else "read"].append(_absolute(path))
    elif event in CHANGES:
        touched["changed"] += [_absolute(path) for path in arguments if isinstance(path, str | bytes)]
    elif event in RUNS:
        touched["run"].append(f"{event} {arguments}")


def _absolute(path: str | bytes) -> str:
    return str(Path(os.fsdecode(path)).absolute())


def take(archive: str) -> dict[str, Any]:
    """Return what was said, or the paths and labels that were taken."""
    whole = check_params(ROOT / "params.yaml")
    params = whole.model_copy(update={"data": whole.data.model_copy(update={"source": "archive", "path": archive})})
    try:
        source(source_out=Path("source.json"), weights_out=Path("weights.json"), params=params)
        ingest(source_json=Path("source.json"), raw_dir=RAW, params=params.data)
    except PawlineError as error:
        return {"said": str(error)}
    return {"taken": [[one.path, one.label] for shard in raw.shard_paths(RAW) for one in raw.read_shard(shard)]}


def main() -> None:
    """Take all archives."""
    archives = json.load(sys.stdin)
    sys.addaudithook(note)
    said = {archive: take(archive) for archive in archives}
    seen = {kind: sorted(set(paths)) for kind, paths in touched.items()}
    Path("said.json").write_text(json.dumps(said), encoding="utf-8")
    Path("touched.json").write_text(json.dumps(seen), encoding="utf-8")


if __name__ == "__main__":
    main()
