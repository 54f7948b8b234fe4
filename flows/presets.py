"""Settings that go on top of params.yaml: presets (`presets/*.yaml`) and single values from the command line.

A setting is a dotted key, such as `train_head.epochs`, and a value. Nothing is written before all of it is checked.
Everything works on the project in the current folder.
"""

import copy
import difflib
import logging
import os
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.representer import RoundTripRepresenter

from tasks.params import check_values
from tasks.params_file import read_values
from tasks.stage import PawlineError
from tasks.store_urls import is_store_url

PRESETS_DIR = Path("presets")
PARAMS_PATH = Path("params.yaml")
PATH_KEYS = ("data.path", "backbone.path")  # relative to where the user stands
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".tbz2", ".xz", ".txz")  # how the name of one ends, in a bucket
# What Hydra's override grammar takes without quotes, and what it then takes for something else than text.
PLAIN_TEXT = re.compile(r"[A-Za-z_./][\w./:-]*", re.ASCII)
NOT_TEXT = ("null", "true", "false", "nan", "inf")
Settings = dict[str, Any]

logger = logging.getLogger(__name__)


def preset_names() -> list[str]:
    """Return the names of the presets there are."""
    return sorted(path.stem for path in PRESETS_DIR.glob("*.yaml"))


def preset_path(name: str) -> Path:
    """Return a preset's file.

    Raises:
        PawlineError: There is none of that name.
    """
    known = preset_names()
    if name not in known:
        nearest = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {nearest[0]}? " if nearest else ""
        raise PawlineError(f"unknown preset {name}: {hint}(known here: {', '.join(known) or 'none'})")
    return PRESETS_DIR / f"{name}.yaml"


def describe_preset(name: str) -> str:
    """Return a preset's first line, which says what it is."""
    return preset_path(name).read_text(encoding="utf-8").partition("\n")[0].removeprefix("#").strip()


def load_preset(name: str) -> Settings:
    """Return what a preset sets."""
    return flatten(read_values(preset_path(name)))


def parse_setting(text: str) -> Settings:
    """Read `KEY=VALUE`, the value in YAML; a mapping sets the keys below.

    Raises:
        PawlineError: There is no key or no `=`, or the value is no YAML.
    """
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise PawlineError(f"--set {text}: write KEY=VALUE, such as --set train_head.epochs=5")
    return flatten(parse_value(value, key), key)


def parse_value(text: str, key: str) -> Any:  # noqa: ANN401 - any YAML value
    """Read a value in YAML, as it would be read in params.yaml."""
    try:
        return YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise PawlineError(f"{key}: {text!r} is not readable YAML: {' '.join(str(error).split())}") from None


def collect_settings(preset: str | None, assignments: Iterable[str], *, here: Path) -> Settings:
    """Return the preset's settings, and over them those of the command line.

    Args:
        preset: A preset's name, if any.
        assignments: `KEY=VALUE` each.
        here: Where the user stands, which relative paths start from.
    """
    return combine(preset, parse_assignments(assignments, here=here))


def parse_assignments(assignments: Iterable[str], *, here: Path) -> Settings:
    """Return what `KEY=VALUE` each set; relative paths start from `here`."""
    given: Settings = {}
    for text in assignments:
        given |= parse_setting(text)
    return given | {key: relative_to_root(given[key], here) for key in PATH_KEYS if key in given}


def combine(preset: str | None, overrides: Mapping[str, Any]) -> Settings:
    """Return the preset's settings, over them single ones by dotted key, and the `data.source` which their path needs.

    Raises:
        PawlineError: There is no such preset, or nothing at the path.
    """
    given = {name: leaf for key, value in overrides.items() for name, leaf in flatten(value, key).items()}
    settings = (load_preset(preset) if preset else {}) | given
    if given.get("data.path") and "data.source" not in given:
        settings |= _fitting_source(given["data.path"], settings)
    return settings


def over_preset(combined: Settings, given: Settings) -> Settings:
    """Return what of combined settings goes over a preset: those that were given, and the source their path needs."""
    fitted = {"data.source"} if given.get("data.path") else set()
    return {key: value for key, value in combined.items() if key in given.keys() | fitted}


def relative_to_root(path: Any, here: Path) -> Any:  # noqa: ANN401 - the user may have given something else
    """Return a path that was given in `here` as seen from the current folder; URLs and absolute paths stay."""
    if not isinstance(path, str) or "://" in path or not path:
        return path
    path = str(Path(path).expanduser())
    return path if Path(path).is_absolute() or here == Path.cwd() else os.path.relpath(here / path)


def flatten(value: Any, prefix: str = "") -> Settings:  # noqa: ANN401 - any YAML value
    """Return the leaves of nested mappings by dotted key."""
    if not isinstance(value, dict) or (prefix and not value):
        return {prefix: value}
    dotted = prefix and f"{prefix}."
    return {key: leaf for name, inner in value.items() for key, leaf in flatten(inner, f"{dotted}{name}").items()}


def apply_settings(values: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """Return a copy of nested values in which the settings are set."""
    result: dict[str, Any] = copy.deepcopy(dict(values))
    for key, value in settings.items():
        *sections, name = key.split(".")
        section = result
        for part in sections:
            if not isinstance(section.get(part), dict):
                section[part] = {}
            section = section[part]
        section[name] = value
    return result


def changes(settings: Settings) -> Settings:
    """Check params.yaml with the settings in it, and return those that it does not have yet.

    Raises:
        PawlineError: With the line that params.yaml itself would get.
    """
    values = read_values(PARAMS_PATH)
    check_values(apply_settings(values, settings), PARAMS_PATH)
    present = flatten(values)
    missing = object()
    return {key: value for key, value in settings.items() if repr(present.get(key, missing)) != repr(value)}


def apply(settings: Settings) -> None:
    """Check settings and write those that params.yaml does not have yet, and say so."""
    written = changes(settings)
    write_settings(written)
    if written:
        logger.info("params.yaml has the settings now; `git diff params.yaml` shows them")


def write_settings(settings: Settings) -> None:
    """Write settings into params.yaml, its comments and layout kept; without settings it is not touched."""
    if not settings:
        return
    yaml = YAML()
    yaml.Representer = _Representer
    yaml.preserve_quotes = True
    yaml.width = 4096  # characters, so that no line is broken
    document = yaml.load(PARAMS_PATH)
    for key, value in settings.items():
        *sections, name = key.split(".")
        section = document
        for part in sections:
            section = section.setdefault(part, {})
        section[name] = _in_one_line(yaml, value)
    unfinished = PARAMS_PATH.with_name(f".unfinished.{PARAMS_PATH.name}")
    with unfinished.open("w", encoding="utf-8") as file:
        yaml.dump(document, file)
    unfinished.replace(PARAMS_PATH)


def dvc_arguments(settings: Settings) -> list[str]:
    """Return the settings as DVC's own commands take them, for a shell without quotes.

    Raises:
        PawlineError: A value has a space in it, at which the shell would split it.
    """
    overrides = [hydra_override(key, value) for key, value in settings.items()]
    for override in overrides:
        if re.search(r"\s", override):
            raise PawlineError(f"{override} has a space in it: use `pawline run --preset` or --set instead")
    return [argument for override in overrides for argument in ("--set-param", override)]


def hydra_override(key: str, value: Any) -> str:  # noqa: ANN401 - any YAML value
    """Return a setting in Hydra's override grammar, without spaces of its own."""
    return f"{key}={_hydra_value(value)}"


def _fitting_source(path: Any, settings: Settings) -> Settings:  # noqa: ANN401 - the user may have given something else
    """Return the `data.source` that a path asks for, and say so if it is not the one that is set."""
    source = settings.get("data.source", flatten(read_values(PARAMS_PATH)).get("data.source"))
    if not isinstance(path, str):
        return {}
    if source == "tfds":
        raise PawlineError(
            "data.path is given and data.source is tfds, which would download its own photos into it: add "
            "--set data.source=directory (or archive) for yours, or --set data.source=tfds"
        )
    is_url = "://" in path
    is_folder = is_store_url(path) and not path.endswith(ARCHIVES) if is_url else Path(path).is_dir()
    if not is_url and not Path(path).exists():
        raise PawlineError(f"data.path is {path!r}: no such file or folder")
    fitting = "directory" if is_folder else "archive"
    if fitting != source:
        what = "a folder" if is_folder else "a URL" if is_url else "a file"
        logger.info("data.source is %s instead of %s: data.path is %s", fitting, source, what)
    return {"data.source": fitting}


def _hydra_value(value: Any) -> str:  # noqa: ANN401 - any YAML value
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list):
        return f"[{','.join(map(_hydra_value, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{name}:{_hydra_value(inner)}" for name, inner in value.items()) + "}"
    text = str(value)
    if PLAIN_TEXT.fullmatch(text) and text.lower() not in NOT_TEXT:
        return text
    # A backslash is itself, except before a quote or at the end.
    return "'" + re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), text) + "'"


def _in_one_line(yaml: YAML, value: Any) -> Any:  # noqa: ANN401 - any YAML value
    """Return a value whose lists are written as `[1, 2]`."""
    if not isinstance(value, list):
        return value
    sequence = yaml.seq(value)
    sequence.fa.set_flow_style()
    return sequence


class _Representer(RoundTripRepresenter):
    """Writes null as `null` and small numbers in full, as params.yaml does."""

    def represent_null_in_full(self, _: None) -> ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:null", "null")

    def represent_small_float(self, value: float) -> ScalarNode:
        if "e-" in repr(value):
            return self.represent_scalar("tag:yaml.org,2002:float", format(Decimal(repr(value)), "f"))
        return self.represent_float(value)


_Representer.add_representer(type(None), _Representer.represent_null_in_full)
_Representer.add_representer(float, _Representer.represent_small_float)
