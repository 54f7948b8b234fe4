"""Known vulnerabilities of what requirements.lock pins, by pip-audit, where a service that knows them can be reached.

    python -m tests.audit        `make audit`: 0 none known or nobody to ask, 1 some, each in a line, 2 no pip-audit

It asks within a minute, and says so where nobody answers: then it is not known whether there are any.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
SECONDS = 60.0
UNKNOWN = "audit: no service that knows vulnerabilities can be reached: nothing is known about what is pinned"
# How the last line begins that pip-audit, or the error that it ends with, has for a network that is not there.
NO_NETWORK = re.compile(
    r"(requests|urllib3|socket|ssl|http)\.|(Connection|Timeout)\w*Error|pip_audit\._service\.|.*your network may be"
)


class AuditError(Exception):
    """pip-audit is not there, or fails by itself."""


def audit(lock: Path, seconds: float = SECONDS) -> str | None:
    """Return what pip-audit says of a lock file, as JSON; None where it could not ask.

    Raises:
        AuditError: It says nothing, and not because of the network.
    """
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(lock), "--disable-pip", "--no-deps"]
    options = ["--format", "json", "--progress-spinner", "off", "--timeout", "10"]
    try:
        done = subprocess.run([*command, *options], capture_output=True, text=True, check=False, timeout=seconds)
    except subprocess.TimeoutExpired:
        return None
    if done.stdout.strip():
        return done.stdout
    said = done.stderr.strip().splitlines() or [f"it ended with {done.returncode} and without a word"]
    if NO_NETWORK.match(said[-1]):
        return None
    raise AuditError(said[-1])


def summarize(answer: str | None) -> tuple[list[str], int]:
    """Return what to say of pip-audit's answer, and an exit code."""
    packages: list[dict[str, Any]] = json.loads(answer)["dependencies"] if answer else []
    known = [package for package in packages if "vulns" in package]
    found = [
        f"audit: {package['name']} {package['version']}: {flaw['id']}, mended in {', '.join(flaw['fix_versions'])}"
        for package in known
        for flaw in package["vulns"]
    ]
    if not known:
        return [UNKNOWN], 0
    asked = f"audit: {len(known)} of {len(packages)} pinned packages are known there, {len(found)} vulnerabilities"
    return [*found, asked], int(bool(found))


def main() -> None:
    """Ask, and say what came."""
    try:
        lines, code = summarize(audit(ROOT / "requirements.lock"))
    except AuditError as error:
        lines, code = [f"audit: pip-audit does not work: {error}"], 2
    sys.stdout.write("\n".join([*lines, ""]))
    sys.exit(code)


if __name__ == "__main__":
    main()
