"""What one stage wrote and the next one read; test_verify.py and test_tampering.py have whole runs."""

import pytest

from lineage.lockfile import LockedPath, LockedStage
from lineage.verify_graph import verify_chain

WROTE = LockedPath("models/classifier.keras", "1" * 32, 9000)


@pytest.mark.parametrize(
    ("read", "status", "advice"),
    [
        (WROTE, "verified", ""),
        (LockedPath(WROTE.path, "2" * 32, 9000), "tampered", "evaluate read other bytes than fine_tune wrote: `dvc"),
        (LockedPath(WROTE.path, WROTE.md5, 1000), "tampered", "evaluate read it in another size: DVC's cache is dama"),
    ],
)
def test_what_was_read_is_compared_with_what_was_written(read: LockedPath, status: str, advice: str) -> None:
    stages = (LockedStage("fine_tune", "", outs=(WROTE,)), LockedStage("evaluate", "", deps=(read,)))
    [link] = verify_chain({stage.name: stage for stage in stages})
    assert (link.name, link.stage, link.status) == (WROTE.path, "evaluate", status)
    assert link.detail.startswith(advice)
