"""Which of the project's modules a module imports, however deep, and a digest of their bytes."""

import ast
import hashlib
from pathlib import Path

ROOT = Path(__file__).parent.parent


def import_closure(module: str) -> list[Path]:
    """Return the project's files that running a module needs, itself among them, relative to the project, sorted."""
    found: set[Path] = set()
    waiting = [module, module.rpartition(".")[0], f"{module}.__main__"]
    while waiting:
        path = _file_of(waiting.pop())
        if path is not None and path not in found:
            found.add(path)
            waiting += _imported_by(path)
    return sorted(found)


def digest_closure(module: str) -> str:
    """Return one SHA-256 of the names and bytes of a module's import closure."""
    return _digest(import_closure(module))


def digest_package(package: str) -> str:
    """Return one SHA-256 of the names and bytes of all modules of a package."""
    return _digest(sorted(path.relative_to(ROOT) for path in (ROOT / package).rglob("*.py")))


def _digest(paths: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.as_posix()}\0".encode() + (ROOT / path).read_bytes() + b"\0")
    return digest.hexdigest()


def _file_of(module: str) -> Path | None:
    """Return the file of a project module; None for a library's."""
    base = Path(*module.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if (ROOT / path).is_file()), None)


def _imported_by(path: Path) -> set[str]:
    """Return every module that a file names in an import, at any depth, and the packages they lie in."""
    names: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {".".join(parts[:end]) for name in names for parts in [name.split(".")] for end in range(1, len(parts) + 1)}
