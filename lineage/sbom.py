"""What the environment is made of, as a CycloneDX bill of materials: each package with its licence and hashes.

    python -m lineage.sbom > sbom.json

The hashes are those of requirements.lock: of the files that a package may have been installed from. The same
environment gives the same document: it has no time, and its serial number is made of its content.
"""

import argparse
import importlib.metadata
import json
import os
import re
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lineage.trace import LOCK_FILE
from tasks.stage import PawlineError

if TYPE_CHECKING:
    from cyclonedx.model.component import Component

REQUIREMENT = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)
HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
LONGEST_LICENCE = 100  # letters; some packages have the whole text in the field


def read_hashes(lock: str) -> dict[tuple[str, str], list[str]]:
    """Return the SHA-256 digests that a lock file allows, by a package's canonical name and version."""
    found = list(REQUIREMENT.finditer(lock))
    ends = [each.start() for each in found[1:]] + [len(lock)]
    return {
        (canonical(each[1]), each[2]): HASH.findall(lock, each.end(), end)
        for each, end in zip(found, ends, strict=True)
    }


def canonical(name: str) -> str:
    """Return a package's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def environment_bom(lock: str) -> dict[str, Any]:
    """Describe the packages that are installed here as a CycloneDX 1.6 document.

    Args:
        lock: The content of the lock file, for the hashes.
    """
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot6

    hashes = read_hashes(lock)
    packages = {canonical(each.name): each for each in importlib.metadata.distributions()}
    parts = [_component(name, each, hashes) for name, each in sorted(packages.items()) if name != "pawline"]
    whole = Component(type=ComponentType.APPLICATION, name="pawline", bom_ref="pawline")
    made = Bom(components=parts, metadata=BomMetaData(component=whole))
    made.register_dependency(whole, parts)
    written: dict[str, Any] = json.loads(JsonV1Dot6(made).output_as_string())
    del written["metadata"]["timestamp"]
    content = json.dumps(written["components"], sort_keys=True)
    written["serialNumber"] = uuid.uuid5(uuid.NAMESPACE_URL, f"urn:pawline:sbom:{content}").urn
    return written


def _component(
    name: str, package: importlib.metadata.Distribution, hashes: dict[tuple[str, str], list[str]]
) -> "Component":
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.license import DisjunctiveLicense
    from packageurl import PackageURL

    said = [*(package.metadata.get_all("License-Expression") or []), *(package.metadata.get_all("License") or [])]
    licence = next((text.strip() for text in said if 0 < len(text.strip()) < LONGEST_LICENCE), "")
    purl = PackageURL("pypi", name=name, version=package.version)
    return Component(
        type=ComponentType.LIBRARY,
        bom_ref=str(purl),
        name=name,
        version=package.version,
        purl=purl,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=each) for each in hashes.get((name, package.version), [])],
        licenses=[DisjunctiveLicense(name=licence)] if licence else [],
    )


def main(argv: list[str] | None = None) -> None:
    """Print the document; to a reader that has enough of it, as much as it takes.

    Raises:
        PawlineError: There is no lock file, or what is printed cannot be written.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lock", type=Path, default=Path(LOCK_FILE), help="default: %(default)s")
    args = parser.parse_args(argv)
    try:
        lock = args.lock.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not a text file"
        raise PawlineError(f"{args.lock}: {why}: run this in the project's folder, or give --lock FILE") from error
    document = environment_bom(lock)
    try:  # piece by piece: of one that is written in part, an unbuffered standard output loses the rest in silence
        json.dump(document, sys.stdout, indent=2, ensure_ascii=False)
        sys.stdout.write("\n")
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python would try the rest again as it ends
        if not isinstance(error, BrokenPipeError):
            raise PawlineError(f"the document cannot be written ({error.strerror}): make room and try again") from error


if __name__ == "__main__":
    try:
        main()
    except PawlineError as error:
        sys.exit(f"error: {error}")
