"""`pawline predict`: what a classifier says of photos."""

import os
import sys
import time
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Literal, NamedTuple

import typer

from flows.commands.shared import interruptible
from tasks.stage import PawlineError

if TYPE_CHECKING:
    from inference.classifier import Classifier
    from inference.inputs import Walk
    from inference.models import Found
    from inference.output import Write
    from inference.tally import Tally

SOME_UNREADABLE = 3  # exit code
STDOUT = Path("-")


class Writing(NamedTuple):
    """Where answers go beside the table: standard output and files."""

    json: bool
    csv: Path | None
    parquet: Path | None
    sort: Path | None
    explain: Path | None


def predict_command(
    photos: Annotated[
        list[str], typer.Argument(metavar="PHOTO...", help="Files, folders, globs, URLs, - for standard input.")
    ],
    model: Annotated[
        str | None, typer.Option("--model", "-m", metavar="MODEL", help="A version, a run, a project or export folder.")
    ] = None,
    unsure_below: Annotated[
        float,
        typer.Option(metavar="P", show_default=False, help="Say `unsure` below this probability, 0 to 1."),
    ] = 0.0,
    json_: Annotated[bool, typer.Option("--json", help="Print a JSON object a line.")] = False,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Write CSV; - prints it.")] = None,
    parquet: Annotated[Path | None, typer.Option(metavar="FILE", help="Write Parquet.")] = None,
    sort: Annotated[Path | None, typer.Option(metavar="DIR", help="Copy photos into DIR/<class>/, see above.")] = None,
    explain: Annotated[Path | None, typer.Option(metavar="DIR", help="Write Grad-CAM overlays.")] = None,
    engine: Annotated[
        Literal["auto", "openvino", "litert", "keras"],
        typer.Option(metavar="NAME", show_default=False, help="auto, openvino, litert or keras."),
    ] = "auto",
    precision: Annotated[
        Literal["auto", "float32", "bfloat16"],
        typer.Option(metavar="NAME", show_default=False, help="auto, float32 or bfloat16."),
    ] = "auto",
) -> None:
    """Say what is on photos: their class, and how probable it is.

    A table on a terminal, CSV elsewhere, unless --csv or --parquet names a file. The format is read from the bytes; of
    an animation the first frame counts. Standard input is an image, or a list of photos: one a line, or between null
    characters. Symbolic links in folders are left out and counted. --sort copies unsure photos into DIR/unsure/ and
    those that cannot be read, if they have any bytes, into DIR/unreadable/; the photos stay where they are.

    Exit codes: 0 all answered; 3 some could not be read (they are listed with the reason); 1 none, or an error.

    \b
    Examples:
      pawline predict photo.jpg holiday/ 'more/*.png' https://example.com/cat.jpg
      pawline predict holiday --unsure-below 0.9 --sort sorted
      pawline predict holiday --model v2 --csv answers.csv --explain overlays
      find . -name '*.jpg' -print0 | pawline predict - --json
    """  # noqa: D301 - \b keeps the lines of the examples apart
    writing = Writing(json_, csv, parquet, sort, explain)
    with interruptible("what was answered so far stands; files are written only at the end"):
        _check_share(unsure_below)
        _check(photos, writing)
        from inference import answers, classifier, models
        from inference.inputs import Walk

        found = models.find(model, Path.cwd())
        # A photo for each processor, rather than all processors for a photo: decoding one keeps no more than one busy.
        loaded = classifier.load(found.export_dir, engine=engine, precision=precision, threads=1)
        answers.check_unsure(unsure_below, loaded.labels)
        walk = Walk(photos, _unbuffered(sys.stdin.buffer), leave_out=[folder for folder in (sort, explain) if folder])
        tally = _predict(walk, found, loaded, writing, unsure_below)
    if not tally.answered:
        raise PawlineError(tally.why_nothing())
    if tally.unreadable:
        raise typer.Exit(SOME_UNREADABLE)


def _check_share(unsure_below: float) -> None:
    """Refuse what is no probability: 90 is meant as 90 %."""
    if not 0 <= unsure_below <= 1:
        example = f"{unsure_below / 100:g}, not {unsure_below:g}" if 1 < unsure_below <= 100 else "0.9"
        raise PawlineError(f"--unsure-below {unsure_below:g}: give a share between 0 and 1 ({example})")


def _check(photos: list[str], writing: Writing) -> None:
    """Refuse options that do not go together, and folders to write that are to be read."""
    if writing.json and writing.csv == STDOUT:
        raise PawlineError("--json and --csv - both print: give one of them, or --csv FILE")
    if writing.parquet == STDOUT:
        raise PawlineError("--parquet - would print bytes: name a file; --csv - prints text")
    if writing.csv is not None and writing.parquet is not None and writing.csv.resolve() == writing.parquet.resolve():
        raise PawlineError(f"--csv and --parquet are both to write {writing.csv}: name two files")
    if photos.count("-") > 1:
        raise PawlineError("standard input can be read once: give - once")
    for name, folder in (("--sort", writing.sort), ("--explain", writing.explain)):
        if folder is not None and folder.exists() and not folder.is_dir():
            raise PawlineError(f"{name} {folder} is a file: name a folder")
        if folder is not None and _is_among(photos, folder):
            raise PawlineError(f"{name} {folder} is a folder of the photos: name another")
    for name, file in (("--csv", writing.csv), ("--parquet", writing.parquet)):
        if file not in (None, STDOUT):
            _check_file(name, file, photos)


def _check_file(name: str, file: Path, photos: list[str]) -> None:
    """Refuse a file to write that cannot be written, or is a photo: `--csv *.jpg` would take the first for its own."""
    from inference.inputs import HEAD_BYTES, is_image

    if file.is_dir():
        raise PawlineError(f"{name} {file} is a folder: name a file in it")
    if not file.parent.is_dir():
        raise PawlineError(f"{name} {file}: there is no folder {file.parent}: make it, or name another")
    if not file.is_file():
        return
    with file.open("rb") as existing:
        head = existing.read(HEAD_BYTES)
    if is_image(head) or _is_among(photos, file):
        raise PawlineError(f"{name} {file} is one of the photos and would be overwritten: name the file to write")


def _is_among(photos: list[str], path: Path) -> bool:
    return any(os.path.realpath(photo) == os.path.realpath(path) for photo in photos)


def _unbuffered(file: IO[bytes]) -> IO[bytes]:
    """Return what reads from a pipe what is there, and holds no lock meanwhile that Python needs to end."""
    return getattr(file, "raw", file)


def _predict(walk: "Walk", found: "Found", loaded: "Classifier", writing: Writing, unsure_below: float) -> "Tally":
    """Answer everything, write it as it comes, and say at the end how many there were of each class."""
    from inference.answers import answer
    from inference.tally import Tally
    from tasks.progress import Progress

    tally = Tally()
    total = walk.count() if sys.stderr.isatty() else None
    answers = answer(walk, loaded, unsure_below=unsure_below, keep=bool(writing.sort or writing.explain))
    with ExitStack() as stack:
        writers = _open_writers(stack, found, loaded, writing)
        progress = stack.enter_context(Progress("predict", total=total))
        began = time.monotonic()
        for one in stack.enter_context(closing(answers)):
            for write in (tally.add, *writers):
                write(one)
            progress.advance()
    if walk.links:
        typer.echo(f"symbolic links left out of folders: {walk.links:,} (name them to have them followed)", err=True)
    if tally.answered:
        typer.echo(tally.summary(loaded, time.monotonic() - began), err=True)
    return tally


def _open_writers(stack: ExitStack, found: "Found", loaded: "Classifier", writing: Writing) -> list["Write"]:
    """Return what takes each answer; what it writes is closed, and files appear, with the stack."""
    from inference import copies, output

    printer = _printer(loaded, writing)
    writers: list[Write] = [] if printer is None else [printer]
    if writing.csv is not None and writing.csv != STDOUT:
        writers.append(stack.enter_context(output.csv_file(writing.csv, loaded.labels)))
    if writing.parquet is not None:
        writers.append(stack.enter_context(output.parquet_file(writing.parquet, loaded)))
    if writing.sort is not None:
        if copies.UNREADABLE in loaded.labels:
            raise PawlineError(f"--sort: the class {copies.UNREADABLE} would share a folder with what cannot be read")
        writers.append(partial(copies.Copies().sort, folder=writing.sort))
    if writing.explain is not None:
        from inference.explain import Explainer

        explainer = stack.enter_context(closing(Explainer(found.export_dir, loaded.labels, writing.explain)))
        writers.append(explainer.write)
    return writers


def _printer(loaded: "Classifier", writing: Writing) -> "Write | None":
    """Return what prints each answer, on a terminal above the progress bar; None if they go into a file only."""
    from inference import output

    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # whoever reads a pipe sees each at once
    if writing.json:
        return output.json_lines(sys.stdout, loaded)
    if writing.csv != STDOUT:
        if sys.stdout.isatty():
            from tqdm import tqdm

            return output.Table(loaded.labels, tqdm.write)
        if writing.csv or writing.parquet:
            return None
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a locale without some letters
    return output.csv_rows(sys.stdout, loaded.labels)
