"""`pawline retrain`: a challenger from what is there now, promoted only if it beats the champion."""

import time
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from flows.commands.pipeline import PresetOption, SetOption
from flows.commands.shared import connected_to_prefect, enter_project, interruptible
from tasks.stage import PawlineError

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State


def retrain_command(
    preset: PresetOption = None,
    set_: SetOption = None,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Train and compare even if nothing is new since the last retraining.")
    ] = False,
    overlap: Annotated[
        Literal["wait", "skip"], typer.Option(help="What to do while another retraining is at work.")
    ] = "wait",
) -> None:
    """Retrain, and promote what beats the champion.

    Looks at the photos as they are now. If these, the committed parameters and the code are those of the last one, that
    is all. Otherwise a challenger is trained in a git worktree beside the project, so that your files are not
    touched, and answers the same test photos as the champion. It is registered and promoted if it is better beyond
    chance, worse on no class or slice, and within the limits of `gate:` in params.yaml; if not, it is kept as a DVC
    experiment. Either way reports/retrain/ has the comparison. With a default remote (`pawline remote add`), what is
    missing is fetched from there first, and a new champion's files are copied there last.

    \b
    Examples:
      pawline retrain
      pawline retrain --set data.path=../photos      photos of another place
      pawline retrain --force                        compare once more
      pawline schedule --cron "0 3 * * *"            every night
    """  # noqa: D301 - \b keeps the lines of the examples apart
    started = time.monotonic()
    here = enter_project()
    with interruptible("the champion is the one it was; the next retraining carries on from here"):
        from flows import presets

        given = presets.parse_assignments(set_ or [], here=here)
        settings = presets.combine(preset, given)
        presets.changes(settings)  # what is wrong shows at once
        overrides = presets.over_preset(settings, given)
        state = _run(force=force, preset=preset, overrides=overrides, overlap=overlap)
        if state.is_cancelled():
            raise PawlineError("cancelled: the champion is the one it was; the next retraining carries on from here")
        state.result()  # raises what went wrong
    typer.echo(f"{(state.name or '').lower()}: {state.message}; {time.monotonic() - started:.0f} s")


def _run(**parameters: Any) -> "State[Any]":  # noqa: ANN401 - as the flow takes them
    with connected_to_prefect():
        from flows.retrain import retrain

        return retrain(**parameters, return_state=True)
