"""dvc.lock itself: against dvc.yaml, params.yaml and the code, and its stages against each other."""

import hashlib
from functools import lru_cache
from typing import Any

from lineage import lockfile
from lineage.kept import Files, Kept
from lineage.links import Link, Status
from lineage.lockfile import Lock, LockedPath, LockedStage
from tasks.dvc_hash import hash_listing
from tasks.stage import PawlineError

LOCK, GRAPH, PARAMS, LIBRARIES = "dvc.lock", "dvc.yaml", "params.yaml", "requirements.lock"
NOT_RUN = "dvc.yaml has this stage and dvc.lock has not: `dvc repro`"
RUN_AGAIN = "if that change is yours, `dvc repro` and commit dvc.lock"


def read_lock(kept: Kept, name: str) -> tuple[Lock | None, list[Link]]:
    """Return a run's dvc.lock (of the workspace, the committed one if its own cannot be read) and its links.

    Returns:
        None for one that is there and cannot be read; a link says why, or git's.

    Raises:
        PawlineError: There is none.
    """
    links: list[Link] = []
    for content in kept.contents(LOCK):
        try:
            lock, canonical = _parse_lock(content)
        except (PawlineError, ValueError) as error:  # YAML reads an impossible date as a ValueError
            links.append(Link(kind="lock", name=LOCK, status="tampered", detail=" ".join(str(error).split())))
            continue
        detail = "" if canonical else "not as DVC writes it: `git log -p dvc.lock` shows who changed it"
        status: Status = "verified" if canonical else "tampered"
        return lock, [*links, Link(kind="lock", name=LOCK, status=status, detail=detail, bytes=len(content))]
    if not links and not kept.is_broken(LOCK):
        raise PawlineError(f"{name} has no dvc.lock: nothing ran there yet; `dvc repro`, then commit dvc.lock")
    return None, links


def verify_graph(kept: Kept, lock: Lock) -> list[Link]:
    """Compare each stage's command, dependencies, outputs and parameters with dvc.yaml and params.yaml."""
    graphs = _parse_all(kept, GRAPH)
    values = _parse_all(kept, PARAMS)
    declared = {name for graph in graphs for name in _stages(graph)}
    links = [Link(kind="graph", name=n, status="missing", stage=n, detail=NOT_RUN) for n in declared - lock.keys()]
    for stage in lock.values() if graphs else ():
        links.append(_compare_graph(stage, graphs))
        links.append(_compare_params(stage, graphs, values))
    if not graphs and not kept.is_broken(GRAPH):
        links.append(Link(kind="graph", name=GRAPH, status="tampered", detail="dvc.yaml is gone or cannot be read"))
    return links


def verify_code(kept: Kept, lock: Lock) -> list[Link]:
    """Compare every dependency that no stage wrote with the bytes that git keeps, or the workspace has."""
    made_by = lockfile.producers(lock)
    claims: dict[str, dict[LockedPath, list[str]]] = {}
    for stage in lock.values():
        for dep in stage.deps:
            if dep.path not in made_by:
                claims.setdefault(dep.path, {}).setdefault(dep, []).append(stage.name)
    return [
        _code_link(kept, path, claim) for path, claim in claims.items() if kept.states(path) or not kept.is_broken(path)
    ]


def verify_chain(lock: Lock) -> list[Link]:
    """Compare what each stage read of other stages with what those wrote."""
    written = {out.path: out for stage in lock.values() for out in stage.outs}
    made_by = lockfile.producers(lock)
    links = []
    for stage in lock.values():
        for dep in stage.deps:
            if dep.path not in written:
                continue
            detail = _difference(stage.name, dep, made_by[dep.path], written[dep.path])
            status: Status = "tampered" if detail else "verified"
            links.append(Link(kind="input", name=dep.path, status=status, detail=detail, stage=stage.name))
    return links


def _difference(reader: str, read: LockedPath, maker: str, wrote: LockedPath) -> str:
    """Say how what a stage read differs from what another wrote, and the cure; empty if it does not."""
    if read == wrote:
        return ""
    if read.md5 == wrote.md5:  # as DVC brought it back, who then has nothing to run
        return f"{reader} read it in another size: DVC's cache is damaged, `pawline verify` has the cure"
    return f"{reader} read other bytes than {maker} wrote: `dvc repro`"


def kept_paths(lock: Lock) -> list[str]:
    """Return the files and folders of a run that git keeps: settings, and the dependencies that no stage wrote."""
    made_by = lockfile.producers(lock)
    code = {dep.path for stage in lock.values() for dep in stage.deps if dep.path not in made_by}
    return [LOCK, GRAPH, PARAMS, LIBRARIES, *sorted(code)]


@lru_cache(maxsize=16)  # slow, and versions often share it; the result depends on nothing but the bytes
def _parse_lock(content: bytes) -> tuple[Lock, bool]:
    """Return a dvc.lock, not to be changed, and whether it is byte for byte as DVC writes what it says."""
    from dvc.utils.serialize import dumps_yaml, loads_yaml

    return lockfile.parse_lock(content), dumps_yaml(loads_yaml(content.decode())).encode() == content


@lru_cache(maxsize=16)
def _parse(content: bytes, origin: str) -> dict[str, Any]:
    return lockfile.load_yaml(content, origin=origin)


def _parse_all(kept: Kept, path: str) -> list[dict[str, Any]]:
    """Return the states of a YAML file that can be read; one that cannot differs from the commit or from dvc.lock."""
    parsed = []
    for content in kept.contents(path):
        try:
            parsed.append(_parse(content, path))
        except (PawlineError, ValueError):
            continue
    return parsed


def _stages(graph: dict[str, Any]) -> dict[str, Any]:
    stages = graph.get("stages")
    return stages if isinstance(stages, dict) else {}


def _compare_graph(stage: LockedStage, graphs: list[dict[str, Any]]) -> Link:
    here = _shape(stage.command, [dep.path for dep in stage.deps], [out.path for out in stage.outs])
    wrong = ""
    for number, graph in enumerate(graphs):
        there = _declared(_stages(graph).get(stage.name))
        if there == here:
            return Link(kind="graph", name=stage.name, status="verified", stage=stage.name)
        if number == 0:
            differ = [what for what in here if there is None or here[what] != there[what]]
            wrong = f"dvc.yaml declares {' and '.join(differ)} otherwise: {RUN_AGAIN}"
    return Link(kind="graph", name=stage.name, status="tampered", stage=stage.name, detail=wrong)


def _shape(command: object, deps: list[str], outs: list[str]) -> dict[str, Any]:
    return {"the command": command, "the dependencies": sorted(deps), "the outputs": sorted(outs)}


def _declared(raw: Any) -> dict[str, Any] | None:  # noqa: ANN401 - whatever YAML gives
    """Return what dvc.yaml declares of a stage, or None if that is no stage."""
    try:
        outs = [*raw.get("outs", []), *raw.get("metrics", []), *raw.get("plots", [])]
        return _shape(raw["cmd"], list(raw.get("deps", [])), [_name(out) for out in outs])
    except (AttributeError, KeyError, TypeError):
        return None


def _name(out: Any) -> str:  # noqa: ANN401 - whatever YAML gives
    return str(next(iter(out)) if isinstance(out, dict) else out)


def _compare_params(stage: LockedStage, graphs: list[dict[str, Any]], values: list[dict[str, Any]]) -> Link:
    """Compare a stage's parameters with the values, in params.yaml, of the keys that dvc.yaml declares."""
    wrong: list[str] = []
    for graph in graphs:
        raw = _stages(graph).get(stage.name)
        keys = (raw.get("params") or []) if isinstance(raw, dict) else []
        for params in values:
            wanted = dict(leaf for key in keys for leaf in _leaves(params, str(key)))
            differ = [key for key in wanted.keys() | stage.params.keys() if not _same(wanted, stage.params, key)]
            if not differ:
                return Link(kind="params", name=stage.name, status="verified", stage=stage.name)
            wrong = wrong or sorted(differ)
    detail = f"params.yaml has {', '.join(wrong[:3])} otherwise: {RUN_AGAIN}"
    return Link(kind="params", name=stage.name, status="tampered", stage=stage.name, detail=detail)


def _leaves(params: dict[str, Any], key: str) -> list[tuple[str, Any]]:
    """Return a dotted key's value, or all values below it."""
    value: Any = params
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            return []
        value = value[part]
    return list(lockfile.flatten(value, f"{key}.")) if isinstance(value, dict) and value else [(key, value)]


def _same(one: dict[str, Any], other: dict[str, Any], key: str) -> bool:
    """Compare values as they are written: 1, 1.0 and true are equal to Python."""
    return key in one and key in other and repr(one[key]) == repr(other[key])


def _code_link(kept: Kept, path: str, claims: dict[LockedPath, list[str]]) -> Link:
    states = kept.states(path)
    there = [_locked(path, state) for state in states]
    wrong = sorted(name for claim, names in claims.items() if claim not in there for name in names)
    size = sum(map(len, states[0].values())) if states else 0
    if not wrong:
        return Link(kind="code", name=path, status="verified", bytes=size)
    detail = f"not the bytes that {', '.join(wrong)} read: {RUN_AGAIN}"
    return Link(kind="code", name=path, status="tampered", detail=detail, bytes=size)


def _locked(path: str, state: Files) -> LockedPath:
    """Return a file or folder as dvc.lock would have it."""
    md5s = {name: hashlib.md5(content, usedforsecurity=False).hexdigest() for name, content in state.items()}
    size = sum(map(len, state.values()))
    if path in state:
        return LockedPath(path, md5s[path], size)
    inside = {name.removeprefix(f"{path}/"): md5 for name, md5 in md5s.items()}
    return LockedPath(path, hash_listing(inside), size, len(inside))
