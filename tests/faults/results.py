"""What the tests of faults found, and the page that shows it.

    python -m tests.faults.results FOLDER    adds what is in there to docs/reliability.json, and writes the page

`make faults` runs all tests of faults with their full number of tries, and then this.
"""

import argparse
import ast
import hashlib
import json
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel

from benchmarks.machine import describe_machine
from tasks import stage

ROOT = Path(__file__).parent.parent.parent
JSON_OUT = ROOT / "docs" / "reliability.json"
PAGE_OUT = ROOT / "docs" / "reliability.md"

PAGE = """# Reliability

What was made to go wrong, how often, and what was left of the run afterwards. `make faults` does it all again, in
hours, and writes this page; `make test` does a fast share of it. What somebody could want to do to Pawline, and what
holds against it, is in [security.md](security.md).

{machine}

{sections}"""
TABLE = """## {fault}

{bar}

| what was tried | tries | held | what was seen | test |
|---|---:|---:|---|---|
{lines}
"""

UNTRIED = """
## Not tried in full on this machine

`make test` tries them, or a few of them; of their full number there is nothing to show:

{lines}
"""
SAYING = {"report", "say"}  # the fixtures by which a test says what it found


class Fault(StrEnum):
    """A kind of fault, in the order of the page; the value is its heading."""

    DEATH = "Sudden death"
    RESUME = "Crash-exact resume"
    RESOURCES = "Disk, memory, files and clock"
    NETWORK = "Network"
    CORRUPT_IMAGES = "Corrupt images"
    CORRUPT_FILES = "Corrupt files of our own"
    HOSTILE = "Hostile archives, names and images"
    MODELS = "Untrusted models"
    SECRETS = "Secrets"
    SERVICES = "Services"
    CONCURRENCY = "Concurrency"
    SUPPLY = "Supply chain"
    SOAK = "Soak"


BARS = {
    Fault.DEATH: "The next run ends with the same bytes as one that nobody disturbed, nothing left blocks it, and the "
    "champion is whole.",
    Fault.RESUME: "The final weights are those of a run that nobody disturbed, byte for byte.",
    Fault.RESOURCES: "One clear line, earlier outputs intact, and the run carries on when the cause is gone.",
    Fault.NETWORK: "Bounded tries with growing pauses, downloads carry on, wrong bytes are refused, and no half file "
    "has its final name.",
    Fault.CORRUPT_IMAGES: "No crash, none that takes 5 s or 1 GB (a transparent WebP as large as allowed may take "
    "1.5), and TensorFlow can read whatever is kept.",
    Fault.CORRUPT_FILES: "Found and named; never a wrong result without a word.",
    Fault.HOSTILE: "Nothing outside its folder is read or written, and nothing runs in a page, a shell or a pickle.",
    Fault.MODELS: "Refused; nothing is unpickled anywhere.",
    Fault.SECRETS: "Never in logs, reports, artifacts, lineage or git.",
    Fault.SERVICES: "This machine only unless told otherwise; limits on size, time and number; no answer of 5xx.",
    Fault.CONCURRENCY: "Who comes second waits or is refused clearly; nothing is corrupted.",
    Fault.SUPPLY: "What is installed and downloaded is what was meant.",
    Fault.SOAK: "No growth of memory, open files or temporary files; `pawline gc` bounds the disk.",
}


class Found(BaseModel):
    """What a test of faults found.

    Attributes:
        fault: Its kind.
        what: Was tried, in a few words.
        tries: How often.
        held: How many of them ended as they should.
        seen: Figures and what else is worth knowing, in a line.
        test: Its id, as pytest takes it.
    """

    fault: Fault
    what: str
    tries: int
    held: int
    seen: str
    test: str


def save(found: Found, folder: Path) -> None:
    """Write a file of its own for it: tests run in several processes."""
    name = hashlib.sha256(f"{found.test} {found.what}".encode()).hexdigest()[:16]
    stage.write_json(found.model_dump(), folder / f"{name}.json")


def merge(folder: Path, known: list[Found]) -> list[Found]:
    """Return what was known, with what lies in the folder in the place of what the same tests found before."""
    new = [Found.model_validate_json(path.read_bytes()) for path in sorted(folder.glob("*.json"))]
    run_again = {found.test for found in new}
    together = [found for found in known if found.test not in run_again] + new
    order = list(Fault)
    return sorted(together, key=lambda found: (order.index(found.fault), found.test, found.what))


def render(machine: str, found: list[Found]) -> str:
    """Return the page, in Markdown."""
    sections = [_section(fault, [one for one in found if one.fault == fault]) for fault in Fault]
    page = PAGE.format(machine=f"Seen on: {machine}.", sections="\n".join(section for section in sections if section))
    silent = tests_that_say() - {one.test.partition("[")[0] for one in found}
    return page + (UNTRIED.format(lines="\n".join(f"- `{test}`" for test in sorted(silent))) if silent else "")


def tests_that_say() -> set[str]:
    """Return the ids of the tests that say what they found, without importing them."""
    return {
        f"{path.relative_to(ROOT).as_posix()}::{node.name}"
        for path in Path(__file__).parent.glob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
        if SAYING & {argument.arg for argument in node.args.args}
    }


def _section(fault: Fault, found: list[Found]) -> str:
    if not found:
        return ""
    lines = [f"| {one.what} | {one.tries:,} | {one.held:,} | {one.seen} | `{one.test}` |" for one in found]
    return TABLE.format(fault=fault, bar=BARS[fault], lines="\n".join(lines))


def main(argv: list[str] | None = None) -> None:
    """Add what was found to what is known, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    args = parser.parse_args(argv)
    kept = json.loads(JSON_OUT.read_text(encoding="utf-8"))["found"] if JSON_OUT.exists() else []
    found = merge(args.folder, [Found.model_validate(one) for one in kept])
    machine = describe_machine()
    stage.write_json({"machine": machine, "found": [one.model_dump() for one in found]}, JSON_OUT)
    PAGE_OUT.write_text(render(machine, found), encoding="utf-8")


if __name__ == "__main__":
    main()
