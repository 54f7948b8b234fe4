"""DVC, killed at a chosen moment of its own work.

    python -m tests.faults.killed_dvc MOMENT NUMBER alone|group ARGUMENT...

MOMENT is `change`: before the n-th change to the project's files; `lock` or `rwlock`: in the middle of writing dvc.lock
or the list of who reads and writes what, for the n-th time, when NUMBER hundredths of it are on the disk.
"""

import io
import json
import sys
from pathlib import Path
from typing import IO, Any

from tests.faults.stage_children import kill_now, watch_changes


def main() -> None:
    """Be DVC, and die."""
    moment, number, alone = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "alone"
    if moment == "change":
        left = [number]

        def count() -> None:
            left[0] -= 1
            if left[0] == 0:
                kill_now(alone=alone)

        watch_changes(count)
    elif moment == "lock":
        _die_amid_dvc_lock(number, alone=alone)
    else:
        _die_amid_rwlock(number, alone=alone)
    from dvc.cli import main as dvc

    sys.exit(dvc(sys.argv[4:]))


def _die_amid_dvc_lock(hundredths: int, *, alone: bool) -> None:
    from dvc.utils.serialize import _yaml

    dump = _yaml._dump

    def dump_a_part(data: Any, stream: IO[str]) -> None:  # noqa: ANN401 - as DVC has it
        whole = io.StringIO()
        dump(data, whole)
        if len(data.get("stages", ())) > 2:
            _die_writing(whole.getvalue(), stream, hundredths, alone=alone)
        dump(data, stream)

    _yaml._dump = dump_a_part


def _die_amid_rwlock(hundredths: int, *, alone: bool) -> None:
    dump = json.dump

    def dump_a_part(value: Any, stream: IO[str], **options: Any) -> None:  # noqa: ANN401 - as json has it
        if Path(getattr(stream, "name", "")).name == "rwlock" and value.get("write"):
            _die_writing(json.dumps(value), stream, hundredths, alone=alone)
        dump(value, stream, **options)

    json.dump = dump_a_part  # type: ignore[assignment]  # with fewer names


def _die_writing(text: str, stream: IO[str], hundredths: int, *, alone: bool) -> None:
    stream.write(text[: len(text) * hundredths // 100])
    stream.flush()
    kill_now(alone=alone)


if __name__ == "__main__":
    main()
