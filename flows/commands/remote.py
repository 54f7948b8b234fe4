"""`pawline remote`: where machines share the files of versions."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.shared import enter_project, interruptible

if TYPE_CHECKING:
    from flows.remotes import Remote

app = typer.Typer(
    no_args_is_help=True,
    help="Set up, list and try the remotes where machines share the files of versions.",
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command("add")
def add_command(
    url: Annotated[str, typer.Argument(metavar="URL", help="s3://, gs://, az://, ssh://, or a folder.")],
    name: Annotated[str, typer.Option(help="What it is called.")] = "storage",
    endpoint_url: Annotated[
        str | None, typer.Option(metavar="URL", help="s3: an address other than Amazon's; or AWS_ENDPOINT_URL.")
    ] = None,
    profile: Annotated[
        str | None, typer.Option(help="s3: a profile of ~/.aws; kept on this machine. Or AWS_PROFILE.")
    ] = None,
    region: Annotated[str | None, typer.Option(help="s3: the bucket's region. Or AWS_DEFAULT_REGION.")] = None,
) -> None:
    """Make a place DVC's default remote, once it is seen to work.

    A tiny object is written there, read back and removed before anything is configured. No credentials are ever
    written: they stay where the tools of each store look for them (the environment, a profile, ssh's agent). The
    remote goes into .dvc/config, which git keeps; the name of a profile into .dvc/config.local, which it does not.

    \b
    Examples:
      pawline remote add s3://bucket/pawline
      pawline remote add s3://bucket/pawline --endpoint-url http://10.0.0.5:9000
      pawline remote add gs://bucket/pawline
      pawline remote add ssh://user@host/srv/pawline
      pawline remote add /mnt/share/pawline
    """  # noqa: D301 - \b keeps the lines of the examples apart
    here = enter_project()
    from flows import remotes

    options = {"endpointurl": endpoint_url, "profile": profile, "region": region}
    remote = remotes.plan(url, name, options, here=here)
    with interruptible("nothing is configured"):
        root = Path.cwd()
        remotes.check_free(root, remote)
        remotes.check_access(remote, make_folder=True)
        remotes.add(root, remote)
    typer.echo(f"{remote.name} is the default remote: {remote.shown} was written to, read and cleaned up")
    typer.echo("next: `git commit .dvc/config`, then `pawline push`; another machine clones and runs `dvc pull`")


@app.command("list")
def list_command() -> None:
    """List the remotes; a star marks the default one."""
    enter_project()
    from flows import remotes

    known = remotes.find_remotes(Path.cwd())
    if not known:
        typer.echo("no remote is configured: `pawline remote add URL`")
    typer.echo("\n".join(_lines(known)), nl=bool(known))


@app.command("check")
def check_command(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Which one. Default: the default one.")] = None,
) -> None:
    """Try a remote: write a tiny object, read it back, remove it."""
    enter_project()
    from flows import remotes

    remote = remotes.find_remote(Path.cwd(), name)
    began = time.monotonic()
    with interruptible("an object named .pawline-* may be left there"):
        remotes.check_access(remote)
    typer.echo(f"{remote.name}: {remote.shown} was written to, read and cleaned up in {time.monotonic() - began:.1f} s")


def _lines(remotes: Sequence["Remote"]) -> list[str]:
    width = max((len(remote.name) for remote in remotes), default=0)
    return [
        f"{'*' if remote.is_default else ' '} {remote.name.ljust(width)}  {remote.shown}{_shown(remote)}"
        for remote in remotes
    ]


def _shown(remote: "Remote") -> str:
    """Return the settings that say where and as whom, and none that could be a secret."""
    from flows.remotes import OF_S3

    known = [
        f"{option.removeprefix('--')} {remote.settings[key]}" for key, option in OF_S3.items() if key in remote.settings
    ]
    return f"  ({', '.join(known)})" if known else ""
