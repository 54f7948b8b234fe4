"""`pawline serve`: the classifier behind HTTP, with a page to drop photos on."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flows.commands.shared import interruptible

if TYPE_CHECKING:
    from inference.classifier import Classifier

BYTES_PER_MB = 1_000_000


def serve_command(
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="champion, a version, an experiment, or an export folder. Default: the project's own."
        ),
    ] = None,
    engine: Annotated[Literal["auto", "openvino", "litert", "keras"], typer.Option(help="What computes.")] = "auto",
    precision: Annotated[
        Literal["auto", "float32", "bfloat16"], typer.Option(help="bfloat16 is quicker, and for openvino only.")
    ] = "auto",
    host: Annotated[
        str,
        typer.Option(
            help="Address to listen on. Others than 127.0.0.1 let everybody in who can reach it; 0.0.0.0 by any name."
        ),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8000,
    max_mb: Annotated[float, typer.Option(min=0.01, max=1000, help="Most megabytes of one request.")] = 10,
    unsure_below: Annotated[
        float | None,
        typer.Option(min=0, max=1, metavar="P", help="Answer `unsure` where the likeliest class has less than this."),
    ] = None,
) -> None:
    """Serve the classifier over HTTP, until Ctrl-C.

    / is a page to drop photos on. POST /predict answers programs, with the probability of every class, the model's name
    and the digest by which `pawline lineage` finds where it came from. /healthz says whether it is ready, /metrics has
    counters for Prometheus, /openapi.json describes it all. No photo is kept.

    \b
    Examples:
      pawline serve                                        http://127.0.0.1:8000
      pawline serve --model champion --unsure-below 0.8
      pawline serve --model exported/ --port 9000          an export folder needs no project
      curl -F file=@photo.jpg http://127.0.0.1:8000/predict
      curl -T photo.jpg -X POST -H 'content-type: image/jpeg' http://127.0.0.1:8000/predict

    Exit codes: 0 ended, with what was under way answered; 1 and one line where it cannot start.
    """  # noqa: D301 - \b keeps the lines of the examples apart
    with interruptible("nothing was served yet"):
        from inference import classifier, models, service_server  # not for `pawline --help`
        from inference.answers import check_unsure
        from inference.service import Served, create_app
        from inference.service_limits import own_hosts

        with service_server.listen(host, port) as listening:  # first: that a port is in use shows at once
            found = models.find(model, Path.cwd())
            loaded = classifier.load(found.export_dir, engine=engine, precision=precision, threads=1)
            check_unsure(unsure_below, loaded.labels)
            served = Served(
                classifier=loaded,
                name=found.name,
                digest=loaded.sha256,
                max_bytes=round(max_mb * BYTES_PER_MB),
                unsure_below=unsure_below,
                hosts=own_hosts(host, listening.getsockname()[0]),
            )
            if service_server.is_shared(listening):
                typer.echo(f"warning: whoever can reach {host} can send photos here: there is no password", err=True)
            address = service_server.address_of(listening)
            typer.echo(f"{found.name} ({_described(loaded)}) is served at {address} (Ctrl-C ends it)")
            answered = service_server.serve(create_app(served), listening)
    typer.echo(f"ended: {answered:,} requests answered")


def _described(loaded: "Classifier") -> str:
    shown = ", ".join(loaded.labels) if len(loaded.labels) <= 5 else f"{len(loaded.labels)} classes"
    return f"{shown}; {loaded.engine}, {loaded.precision}"
