"""How params.yaml is read, and what is said of a wrong value: one line with the key, the value, what is allowed."""

import difflib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tasks.stage import PawlineError


class Section(BaseModel):
    """A section of params.yaml: immutable, no unknown keys, no silent conversion."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


S = TypeVar("S", bound=Section)
TYPES_IN_WORDS = {
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "string": "text",
    "array": "a list",
    "object": "a section with keys",
    "null": "null",
}


def read_values(path: Path) -> dict[str, Any]:
    """Read the file's values, unchecked.

    Raises:
        PawlineError: It is missing, not YAML, or holds no sections.
    """
    try:
        values = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PawlineError(f"{path} is missing: restore it with `git checkout {path}`") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise PawlineError(f"{path} is not readable YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise PawlineError(f"{path} must hold sections such as `data:`, and holds none")
    return values


def value_at(values: dict[str, Any], dotted_key: str, path: Path) -> Any:  # noqa: ANN401 - any YAML value
    """Return what stands at a dotted key, or raise a PawlineError if nothing does."""
    value: Any = values
    for key in dotted_key.split("."):
        if not isinstance(value, dict) or key not in value:
            raise PawlineError(f"{path}: {dotted_key} is missing")
        value = value[key]
    return value


def load_section(path: Path, name: str, section: type[S]) -> S:
    """Read one section of the file; the rest of it is not looked at."""
    return checked(section, value_at(read_values(path), name, path), path, prefix=name + ".")


def load_part(path: Path, name: str, part: type[S]) -> S:
    """Read of one section of the file those keys that a class has; the rest of the section is not looked at."""
    values = read_values(path)
    found = {key: value_at(values, f"{name}.{key}", path) for key in part.model_fields}
    return checked(part, found, path, prefix=name + ".")


def checked(section: type[S], values: Any, path: Path, *, prefix: str) -> S:  # noqa: ANN401 - any YAML value
    """Return values as a section, checked.

    Args:
        section: What they must be.
        values: As `read_values` or `value_at` gave them.
        path: The file, for the error.
        prefix: Where in the file they stand, such as `train_head.`.

    Raises:
        PawlineError: With one line for the first thing that is wrong.
    """
    try:
        return section.model_validate(values)
    except ValidationError as error:
        details = min(error.errors(), key=lambda detail: detail["type"] != "extra_forbidden")
        raise PawlineError(f"{path}: {_one_line(section, details, prefix)}") from None


def _one_line(section: type[Section], error: ErrorDetails, prefix: str) -> str:
    location, schema = _locate(section, error)
    key = " ".join((prefix + ".".join(location)).rstrip(".").split())
    if error["type"] == "extra_forbidden":
        known = sorted(schema["properties"])
        nearest = difflib.get_close_matches(location[-1], known, n=1)
        hint = f"did you mean {nearest[0]}? " if nearest else ""
        return f"unknown key {key}: {hint}(known here: {', '.join(known)})"
    if error["type"] == "missing":
        return f"{key} is missing"
    if error["type"] == "value_error":
        message = error["msg"].removeprefix("Value error, ")
        return f"{key}: {message}" if key else message
    shown = {None: "null", True: "true", False: "false"}.get(error["input"]) if _is_constant(error["input"]) else None
    return f"{key} is {shown or repr(error['input'])}: allowed is {_describe(schema)}"


def _is_constant(value: object) -> bool:
    return value is None or isinstance(value, bool)


def _locate(section: type[Section], error: ErrorDetails) -> tuple[list[str], dict[str, Any]]:
    """Return the key that an error is about and the JSON schema of what may stand there, or around an unknown key."""
    whole = section.model_json_schema()
    schema: dict[str, Any] = whole
    location: list[str] = []
    for part in map(str, error["loc"]):
        if "anyOf" in schema:  # what follows names the alternative that was tried
            break
        location.append(part)
        inner = schema["items"] if "items" in schema else schema["properties"].get(part, schema)
        schema = whole["$defs"][inner["$ref"].rpartition("/")[2]] if "$ref" in inner else inner
    return location, schema


def _describe(schema: dict[str, Any]) -> str:
    """Say in words what a JSON schema allows, such as `a number above 0, at most 1`."""
    if "anyOf" in schema:
        return " or ".join(_describe(option) for option in schema["anyOf"])
    if choices := schema.get("enum") or [schema[key] for key in ("const",) if key in schema]:
        return f"one of {', '.join(map(str, choices))}"
    if "pattern" in schema:
        return f"text that matches {schema['pattern']}"
    bounds = {"exclusiveMinimum": "above", "minimum": "at least", "exclusiveMaximum": "below", "maximum": "at most"}
    limits = ", ".join(f"{word} {schema[bound]}" for bound, word in bounds.items() if bound in schema)
    return f"{TYPES_IN_WORDS[schema['type']]} {limits}".rstrip()
