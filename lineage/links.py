"""What `verify` says: one link of the proof after another, each with what became of it."""

from collections.abc import Iterable
from typing import Literal

from lineage.records import Record

Kind = Literal[
    "git", "lock", "graph", "params", "code", "input", "output", "workspace", "weights", "metrics", "file",
    "registry", "decision", "signature", "tag", "entry",
]  # fmt: skip
Status = Literal["verified", "missing", "tampered", "uncommitted", "forgotten"]
HOLDS: tuple[Status, ...] = ("verified", "forgotten")


class Link(Record):
    """One thing that was recomputed from bytes and compared with what is on record.

    Attributes:
        kind: What sort of thing.
        name: Which one: a path, a stage, a git object, a decision.
        status: `verified`; `missing`: the bytes are not here; `tampered`: they are not those on record;
            `uncommitted`: a file that git keeps differs from the commit; `forgotten`: deleted by a signed decision.
        detail: What is wrong and what to do, or a remark.
        bytes: How many bytes were read for it.
        stage: The stage it belongs to, if to one.
    """

    kind: Kind
    name: str
    status: Status
    detail: str = ""
    bytes: int = 0
    stage: str | None = None

    @property
    def holds(self) -> bool:
        """Whether the proof stands as far as this link goes."""
        return self.status in HOLDS


def all_hold(links: Iterable[Link]) -> bool:
    """Say whether every link is verified, or deleted by a decision."""
    return all(link.holds for link in links)
