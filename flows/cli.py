"""The command line: `pawline`.

Prefect, DVC and TensorFlow are imported by the commands that need them, so that help appears at once.
"""

import os
import signal
import sys
from collections.abc import Callable

import typer

from flows.commands import (
    admit,
    cancel,
    card,
    certify,
    compare,
    forget,
    gc,
    lineage,
    models,
    pipeline,
    predict,
    push,
    remote,
    report,
    retrain,
    schedule,
    serve,
    ui,
    verify,
    why,
    worker,
)
from tasks.stage import PawlineError

app = typer.Typer(
    name="pawline",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def pawline() -> None:
    """Pawline turns photos into a validated, evaluated, exported image classifier, and proves where it came from."""


COMMANDS: dict[str, Callable[..., None]] = {
    "run": pipeline.run_command,
    "presets": pipeline.presets_command,
    "sweep": pipeline.sweep_command,
    "retrain": retrain.retrain_command,
    "schedule": schedule.schedule_command,
    "ui": ui.ui_command,
    "worker": worker.worker_command,
    "cancel": cancel.cancel_command,
    "report": report.report_command,
    "predict": predict.predict_command,
    "serve": serve.serve_command,
    "why": why.why_command,
    "lineage": lineage.lineage_command,
    "verify": verify.verify_command,
    "certify": certify.certify_command,
    "models": models.models_command,
    "register": models.register_command,
    "promote": models.promote_command,
    "rollback": models.rollback_command,
    "admit": admit.admit_command,
    "compare": compare.compare_command,
    "push": push.push_command,
    "card": card.card_command,
    "forget": forget.forget_command,
    "gc": gc.gc_command,
}
for name, command in COMMANDS.items():
    app.command(name=name)(command)
app.add_typer(remote.app, name="remote")


def main() -> None:
    """Run the command line.

    Exit codes: 0 done; 1 and one line for a `PawlineError`, or a file or disk that gives way; 2 for wrong usage;
    130 interrupted; 143 ended.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        _run_app()
    except SystemExit as ended:
        server = sys.modules.get("flows.server")
        if server is not None and server.is_lost():  # Prefect would go on for minutes to tell it what happened
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(ended.code if isinstance(ended.code, int) else int(ended.code is not None))
        raise


def _run_app() -> None:
    try:
        app()
    except PawlineError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(1)
    except OSError as error:
        named = f"{error.filename}: " if error.filename else ""
        sys.stderr.write(f"error: {named}{error.strerror or error}: make it accessible and run this again\n")
        sys.exit(1)
