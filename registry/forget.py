"""A request to forget photos: what there is of them, deleting it everywhere, and the decision that says so.

The order lets an interrupted request simply be made again: first `data.forget` in params.yaml keeps the photos out of
every later run (that is the command's part), then their traces go, and last the decision is recorded, so that it never
claims what did not happen.
"""

import hashlib
import re
import shutil
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lineage import lockfile, rebuild
from lineage.runs import Project, is_file
from lineage.store import file_md5
from lineage.verify_registry import forgotten_objects
from registry import decisions, holders
from registry.holders import Records, Row, Use
from registry.ledger import Ledger
from registry.places import Places, check_idle, drop_run_cache, temporary_workspaces, unfinished_objects
from registry.records import Decision
from registry.signing import SigningKey
from tasks.raw import shard_paths
from tasks.stage import SCRATCH, PawlineError

BEGINNING = re.compile(r"[0-9a-f]{6,64}")
SHOWN_DIGITS = 12  # of an id


@dataclass(frozen=True)
class Plan:
    """What there is of some photos.

    Attributes:
        ids: Of the photos: SHA-256 of their bytes, in hex.
        files: The files that they are in the source, by id.
        near: Near-duplicates of them, which are other photos and stay.
        uses: The runs that used them, and how.
        unknown: Runs whose image table is nowhere, so that nobody can say whether they used them.
        sources: `data.source` and `data.path` of the runs that took them.
        holders: The objects that hold something of them, or may, md5 to path, whether they are still anywhere or not.
        certain: Those of them that do for certain.
        held: Those that are still there, by place: md5 to bytes.
        copies: The workspace's files that hold something of them.
        earlier: Decisions to forget any of them, the first one first.
    """

    ids: tuple[str, ...]
    files: dict[str, list[str]]
    near: list[Row]
    uses: list[Use]
    unknown: list[str]
    sources: list[tuple[str, str]]
    holders: dict[str, str]
    certain: frozenset[str]
    held: dict[str, dict[str, int]]
    copies: list[Path]
    earlier: list[Decision]

    @property
    def trained(self) -> list[Use]:
        """The runs that trained on one of them."""
        return [use for use in self.uses if "trained on" in use.roles]

    @property
    def is_gone(self) -> bool:
        """Whether nothing that can be reached holds any of them."""
        return not any(self.held.values()) and not self.copies

    @property
    def is_forgotten(self) -> bool:
        """Whether decisions on record cover all of them, and nothing of them came back."""
        covered = {image_id for decision in self.earlier for image_id in decision.details["ids"]}
        return covered.issuperset(self.ids) and self.is_gone

    @property
    def pending(self) -> set[str]:
        """Remotes that could not be reached when it was last decided to forget one of them."""
        last = {image_id: decision for decision in self.earlier for image_id in decision.details["ids"]}
        return {remote for image_id in self.ids if image_id in last for remote in last[image_id].details["unreachable"]}


def digest_or_beginning(text: str, here: Path) -> str:
    """Return the id of a file's bytes, or the text if it can be the beginning of an id.

    Args:
        text: A file, or an id or the beginning of one.
        here: The folder that a file's path is relative to.

    Raises:
        PawlineError: It is neither.
    """
    if is_file(str(here / text)):
        with (here / text).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    if not BEGINNING.fullmatch(text.lower()):
        raise PawlineError(
            f"{text} is no file and no id: give a photo, or 6 or more of the first digits of its id "
            "(column `id` of data/images.parquet)"
        )
    return text.lower()


def make_plan(project: Project, places: Places, book: Ledger, wanted: Sequence[str]) -> Plan:
    """Find everything there is of photos.

    Args:
        project: The checkout.
        places: Where objects are.
        book: The registry.
        wanted: Ids, or beginnings of ids.

    Raises:
        PawlineError: No run on record has such a photo, or several have one that begins like that.
    """
    records = holders.read_records(project)
    tables = {md5: holders.read_photos(project.store, md5, wanted) for md5 in records.all(holders.IMAGES)}
    photos = {md5: found for md5, found in tables.items() if found is not None}
    rows = {row for found in photos.values() for row in found.rows}
    earlier = [decision for decision in book.decisions if decision.action == "forget"]
    forgotten = {image_id for decision in earlier for image_id in decision.details["ids"]}
    ids = _resolve(wanted, {row.id for row in rows} | forgotten)
    found_holders = holders.find_holders(project.store, records, photos, forgotten_objects(project))
    held_by = {holder.md5: holder.path for holder in found_holders}
    uses = holders.find_uses(records, photos)
    return Plan(
        ids=ids,
        files={image_id: sorted({row.path for row in rows if row.id == image_id}) for image_id in ids},
        near=sorted({row for found in photos.values() for row in found.near if row.id not in ids}),
        uses=uses,
        unknown=_unknown(records, photos.keys()),
        sources=_sources(records, uses),
        holders=held_by,
        certain=frozenset(holder.md5 for holder in found_holders if holder.certain),
        held={place.name: place.sizes(held_by) for place in places.all},
        copies=_copies(project.root, held_by, rows),
        earlier=[decision for decision in earlier if set(ids) & set(decision.details["ids"])],
    )


def delete(project: Project, places: Places, plan: Plan) -> dict[str, str]:
    """Delete everything a plan has found; return the remotes that could not be reached, and why.

    Raises:
        PawlineError: DVC is at work in this project (nothing was deleted), or its cache cannot be written to.
    """
    check_idle(project.root)
    unreachable = dict(places.unreachable)
    drop_run_cache(project.store, set(plan.holders))
    for copy in plan.copies:
        copy.unlink()
    for unfinished in [*_unfinished_outputs(project.root), *unfinished_objects(project.store)]:
        if unfinished.is_dir():
            shutil.rmtree(unfinished)
        else:
            unfinished.unlink(missing_ok=True)
    rebuild.remove_dead(project.root)
    for place in places.all:
        try:
            place.delete(plan.held[place.name])
        except PawlineError as error:
            if place is places.cache:
                raise
            unreachable[place.name] = str(error)
    return unreachable


def record(
    plan: Plan, places: Places, unreachable: dict[str, str], reason: str, *, book: Ledger, key: SigningKey
) -> Decision:
    """Put on record what was forgotten; only what is really gone is named, and held the photos or was deleted here.

    Args:
        plan: What was found.
        places: Where it was.
        unreachable: The remotes that may still hold it.
        reason: Why, in the decider's words.
        book: The registry.
        key: Signs the decision.
    """
    reached = [place for place in places.all if place.name not in unreachable]
    left = {md5 for place in reached for md5 in place.sizes(plan.holders)}
    deleted = {md5 for place in reached for md5 in plan.held[place.name]}
    # What was seen nowhere may have been deleted by an interrupted request, or be in a remote that is away.
    gone = deleted if unreachable else deleted | plan.certain
    details = {
        "ids": list(plan.ids),
        "versions": [use.run.name for use in plan.trained if use.run.kind == "version"],
        "runs": [use.run.name for use in plan.uses],
        "objects": sorted(gone - left),
        "unreachable": sorted(unreachable),
    }
    return decisions.decide(book, decisions.Plan("forget", None, None, None, reason, details=details), key)


def _resolve(wanted: Sequence[str], known: set[str]) -> tuple[str, ...]:
    """Return the one id that begins like each of the wanted."""
    ids: dict[str, None] = {}
    for beginning in wanted:
        found = sorted(image_id for image_id in known if image_id.startswith(beginning))
        if not found:
            raise PawlineError(
                f"no run on record has a photo {beginning[:SHOWN_DIGITS]}: nothing to forget; to keep it out of later "
                "runs add its SHA-256 to data.forget in params.yaml"
            )
        if len(found) > 1:
            raise PawlineError(
                f"{len(found)} photos begin with {beginning}: {', '.join(found[:4])}{', ...' if found[4:] else ''}"
            )
        ids[found[0]] = None
    return tuple(ids)


def _unknown(records: Records, readable: Collection[str]) -> list[str]:
    tables = [(run, lockfile.find_out(lock, holders.IMAGES)) for run, lock in records.runs]
    return [run.name for run, table in tables if table is not None and table.md5 not in readable]


def _sources(records: Records, uses: list[Use]) -> list[tuple[str, str]]:
    """Return where the photos of runs came from, as their dvc.locks have it."""
    used = {use.run.name for use in uses}
    params = [stage.params for run, lock in records.runs if run.name in used for stage in lock.values()]
    return sorted({(each["data.source"], each.get("data.path") or "") for each in params if "data.source" in each})


def _copies(root: Path, held_by: dict[str, str], rows: Collection[Row]) -> list[Path]:
    """Return the files of the workspace, and of experiments' temporary ones, that hold photos."""
    folders = [root, *temporary_workspaces(root)]
    named = [folder / path for folder in folders for path in sorted(set(held_by.values()))]
    copies = [path for path in named if path.is_file() and file_md5(path) in held_by]
    raw = [path for folder in folders for path in shard_paths(folder / holders.RAW) if path not in copies]
    return copies + [path for path in raw if holders.raw_shard_holds(path, rows)]


def _unfinished_outputs(root: Path) -> Iterator[Path]:
    """Yield where a stage leaves outputs that hold photos if it is killed: see `whole_dir` and `whole_file`."""
    for folder in [root, *temporary_workspaces(root)]:
        yield folder / SCRATCH / "features"
        for path in sorted(folder / out for out in holders.PATHS):
            yield path.with_name(f".{path.name}.unfinished")
            yield path.with_name(f".unfinished.{path.name}")
            yield from [*path.parent.glob(".*.tmp"), *path.rglob(".*.tmp")]  # DVC's, of a checkout
