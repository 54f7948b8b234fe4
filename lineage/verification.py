"""The document that `pawline verify --json` prints."""

from lineage.links import Link, Status
from lineage.records import Record
from lineage.reproduce import Reproduction


class Verification(Record):
    """What `pawline verify --json` prints.

    Attributes:
        run: How the run is called.
        kind: What sort of name that is.
        commit: Its commit; None for the workspace.
        verified: Whether every link holds.
        counts: How many links have each status.
        links: Every link.
        reproduction: How a rebuild compares, if one was asked for (`--reproduce`).
    """

    run: str
    kind: str
    commit: str | None
    verified: bool
    counts: dict[Status, int]
    links: list[Link]
    reproduction: Reproduction | None
