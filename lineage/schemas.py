"""The JSON schemas of Pawline's own documents, made of the models that write them.

python -m lineage.schemas    (writes docs/schemas/)
"""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import BaseModel

FOLDER = Path("docs") / "schemas"
DOCUMENTS = {  # name to model; a document of another form gets another name or number
    "lineage": "lineage.records:Lineage",
    "version": "registry.records:Entry",
    "decision": "registry.records:Decision",
    "registry": "registry.records:RegistryContent",
    "verdict": "registry.records:Verdict",
    "certificate": "lineage.certificate:Certificate",
    "verification": "lineage.verification:Verification",
    "photo": "lineage.photo_records:PhotoStory",
    "differences": "lineage.differences:Differences",
    "why": "lineage.why:Why",
}
VERSION = 1
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema(name: str) -> dict[str, Any]:
    """Return the schema of a document, of JSON Schema 2020-12 (https://json-schema.org/draft/2020-12).

    It is of what is written, and refuses a key that is not declared. Its `$id` is a URN: it claims no place on the web.
    """
    module, _, class_name = DOCUMENTS[name].partition(":")
    model: type[BaseModel] = getattr(import_module(module), class_name)
    identity = {"$schema": DIALECT, "$id": f"urn:pawline:schema:{name}:{VERSION}"}
    return {**identity, **model.model_json_schema(mode="serialization")}


def write_schemas(folder: Path) -> None:
    """Write the schema of every document as `<name>.schema.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in DOCUMENTS:
        text = json.dumps(schema(name), indent=2) + "\n"
        (folder / f"{name}.schema.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write_schemas(FOLDER)
