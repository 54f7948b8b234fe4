"""`pawline run`, `pawline presets` and `pawline sweep`: running the graph, with which settings."""

import json
import logging
import time
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.commands.shared import connected_to_prefect, enter_project, interruptible
from tasks.stage import PawlineError

METRICS_PATH = Path("reports/metrics/evaluation.json")
REPORT_PATH = Path("reports/index.html")
BACK = (
    "back to the committed settings: `git checkout params.yaml dvc.lock && dvc checkout`, "
    "or `pawline run` after the first if they never ran here"
)

PresetOption = Annotated[
    str | None, typer.Option("--preset", "-p", metavar="NAME", help="Settings of a preset; `pawline presets` has them.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="KEY=VALUE", help="One setting, over the preset's. As often as needed."),
]

logger = logging.getLogger(__name__)


def run_command(
    stages: Annotated[
        list[str] | None, typer.Argument(metavar="STAGE", help="Stages wanted, with all they need. Default: all.")
    ] = None,
    preset: PresetOption = None,
    set_: SetOption = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the experiment that is kept. Default: the preset's, with a number.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Run even what has not changed.")] = False,
) -> None:
    """Run what changed, in order, and skip the rest.

    Each stage of dvc.yaml becomes one task run in Prefect: Completed when it ran, Cached when DVC found it unchanged,
    with its output in Prefect's log. A failed or interrupted run leaves earlier results intact, and the next run
    carries on from there.

    With --preset or --set the settings are checked, written into params.yaml, and what comes out is kept as a DVC
    experiment: `dvc exp show` compares experiments, `dvc exp apply NAME` brings one back.

    \b
    Examples:
      pawline run                               everything
      pawline run evaluate                      evaluate, and what it needs
      pawline run --force train_head            once more, with what it needs
      pawline run --preset s4                   a recipe of presets/
      pawline run -p s4 --set data.path=../photos --set train_head.epochs=5
      pawline run --set 'train_head.hidden_units=[128]' --name wide-head

    Prefect keeps its records in .prefect/. To look at them: `pawline ui` in another terminal.
    """  # noqa: D301 - \b keeps the lines of the examples apart
    started = time.monotonic()
    here = enter_project()
    with interruptible("the next run carries on from here"):
        from flows import dvc_graph, experiments, presets

        planned = dvc_graph.plan_stages(stages or [])  # what is wrong shows before Prefect starts
        given = presets.parse_assignments(set_ or [], here=here)
        settings = presets.combine(preset, given)
        presets.changes(settings)
        keeps = _can_keep(name) if settings or name else False
        overrides = presets.over_preset(settings, given)
        with experiments.only_command():
            states = _run_pipeline(stages or [], force=force, preset=preset, overrides=overrides)
            typer.echo(_summary(states, seconds=time.monotonic() - started, everything=not stages))
            if keeps:
                typer.echo(_keep(planned, name=name, prefix=preset or "run"))


def presets_command(
    preset: Annotated[str | None, typer.Argument(metavar="NAME", help="Show what this one sets.")] = None,
    dvc: Annotated[bool, typer.Option("--dvc", help="Show it as arguments of `dvc exp run`.")] = False,
) -> None:
    """List the presets, or show one.

    A preset is a recipe: what `pawline run --preset` and `pawline sweep --preset` put over params.yaml.

    \b
    Examples:
      pawline presets                                 what there is
      pawline presets s4                              what s4 sets
      dvc exp run $(pawline presets s4 --dvc)         the same with DVC's own command
    """  # noqa: D301 - \b keeps the lines of the examples apart
    enter_project()
    from flows import presets

    if dvc and preset is None:
        raise PawlineError(f"--dvc needs the name of a preset: {', '.join(presets.preset_names())}")
    if preset is None:
        width = max(map(len, presets.preset_names()), default=0)
        for name in presets.preset_names():
            typer.echo(f"{name:{width}}  {presets.describe_preset(name)}")
    elif dvc:
        typer.echo(" ".join(presets.dvc_arguments(presets.load_preset(preset))))
    else:
        typer.echo(presets.preset_path(preset).read_text(encoding="utf-8"), nl=False)


def sweep_command(
    keys: Annotated[list[str], typer.Argument(metavar="KEY=V1,V2,...", help="A setting and the values to try.")],
    to: Annotated[
        str | None,
        typer.Option(metavar="STAGE", help="Last stage to run. Default: the first with metrics after these KEYs."),
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, max=64, help="Experiments at a time.")] = 2,
    preset: PresetOption = None,
    set_: SetOption = None,
    name: Annotated[
        str | None, typer.Option(help="What the experiments' names begin with. Default: sweep1, sweep2, ...")
    ] = None,
) -> None:
    """Try every combination of some settings and rank them.

    Each combination is a DVC experiment. Only the stages that read a swept setting run, in temporary folders; what
    they need is brought up to date once, before. The experiments are kept (`dvc exp show`), with a table and a picture
    of them in reports/sweeps/.

    \b
    Examples:
      pawline sweep train_head.learning_rate=1e-4,3e-4,1e-3 train_head.dropout=0,0.2
      pawline sweep 'train_head.hidden_units=[],[128],[256,64]' --set train_head.epochs=10
      pawline sweep fine_tune.unfrozen_layers=20,60,100 --to evaluate --jobs 1 --name depth
    """  # noqa: D301 - \b keeps the lines of the examples apart
    here = enter_project()
    with interruptible("`dvc exp show` has the experiments that were finished"):
        from flows import presets, sweep, sweep_run

        grid = sweep.parse_grid(keys, here=here)
        base = presets.collect_settings(preset, set_ or [], here=here)
        again = ["pawline", "run", *(["--preset", preset] if preset else [])]
        again += [part for text in set_ or [] for part in ("--set", text)]
        failed = sweep_run.run_sweep(grid, base, to=to, jobs=jobs, name=name, again=again)
    if failed:
        raise typer.Exit(1)


def _run_pipeline(targets: list[str], **options: Any) -> dict[str, str]:  # noqa: ANN401 - as the flow takes them
    """Run the flow, its log on the terminal and Prefect's own words not."""
    with connected_to_prefect():
        from prefect.exceptions import CancelledRun

        from flows.pipeline import pipeline

        try:
            states: dict[str, str] = pipeline(targets, **options)
        except CancelledRun:
            raise PawlineError("the run was cancelled in Prefect: `pawline run` carries on from there") from None
    return states


def _can_keep(name: str | None) -> bool:
    """Say whether the run can be kept as an experiment of that name; a name that was given must be possible."""
    from flows import experiments

    if not experiments.are_possible():
        if name:
            raise PawlineError("--name: a DVC experiment needs a git repository with a commit, and there is none")
        logger.info("this run is not kept as a DVC experiment: that needs a git repository with a commit")
        return False
    if name:
        experiments.check_name(name)
        if name in experiments.experiment_names():
            raise PawlineError(f"--name {name}: there is an experiment of that name; choose another")
    return True


def _keep(stages: list[str], *, name: str | None, prefix: str) -> str:
    """Keep the workspace as an experiment, and return the line that says so."""
    from flows import experiments

    kept = None if name else experiments.find_kept()
    if kept is None:
        kept = name or experiments.free_name(prefix)
        experiments.keep_workspace(stages, name=kept)
    return f"kept as {kept}: `dvc exp show` compares experiments; {BACK}"


def _summary(states: dict[str, str], *, seconds: float, everything: bool) -> str:
    """Return the line of how much was work, what came out and where to look (if everything is up to date)."""
    counts = Counter(states.values())
    parts = [f"{counts['Completed']} of {len(states)} stages run, {counts['Cached']} cached, in {seconds:.0f} s"]
    if everything and METRICS_PATH.exists():
        metrics = json.loads(METRICS_PATH.read_text(encoding="utf-8"))
        parts.append(f"{metrics['split']} accuracy {metrics['accuracy']:.4f} ({metrics['selected']})")
    if everything and REPORT_PATH.exists():
        parts.append(f"see {REPORT_PATH}")
    return "; ".join(parts)
