"""What a retraining has from the default remote, and gives to it; without such a remote, nothing.

A remote that is away keeps no retraining from its end: what could not be fetched is made anew, and what could not be
copied is said on the page, in the state and on the terminal.
"""

import logging

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows import artifacts, remotes
from lineage import lockfile
from lineage.runs import Project, Run, champion
from lineage.verify_registry import forgotten_objects
from registry import contest
from tasks.stage import PawlineError

logger = logging.getLogger(__name__)


def pull_missing(project: Project, lock: bytes | None) -> None:
    """Bring what a retraining starts from into the cache: the outputs of the last run, and the champion.

    Args:
        project: The checkout.
        lock: The dvc.lock that the retraining starts from, if there is one.

    Raises:
        PawlineError: The champion is neither here nor in the remote, so that nothing could stand against it.
    """
    remote = project.store.default_remote
    if remote is None:
        return
    try:
        fetched = 0 if lock is None else pull(project, remote, lock)
        if fetched:
            logger.info("%d files fetched from the remote %s", fetched, remote)
    except PawlineError as error:
        logger.warning("nothing is fetched from the remote %s (%s): what is not here is made anew", remote, error)
    current = champion(project)
    if current is None:
        return
    try:
        contest.fetch_champion(project, current)
    except PawlineError as error:
        raise PawlineError(f"{current.name}, the champion, is needed ({error}): `pawline remote check`") from error


def push_promoted(project: Project, ended: State[None]) -> State[None]:
    """Copy the files of a new champion to the default remote; return how its retraining ended, with what came of it."""
    remote, version = project.store.default_remote, champion(project)
    if remote is None or version is None:
        return ended
    logger.info("copying the files of %s to the remote %s", version.name, remote)
    try:
        said = f"{push(project, version, remote)} files copied to the remote {remote}"
    except (PawlineError, KeyboardInterrupt) as error:  # the champion is a new one by now, whatever ends the copying
        said = f"NOT copied to the remote {remote} ({str(error) or 'interrupted'}): `pawline push` once it is there"
        logger.warning("%s: %s", version.name, said)
    artifacts.publish_push(f"{version.name}: {said}")
    return Completed(name=ended.name, message=f"{ended.message}; {said}")


@task(task_run_name="pull", description="what the last run wrote, from the remote", cache_policy=NO_CACHE)
def pull(project: Project, remote: str, lock: bytes) -> int:
    """Bring what a run wrote into the cache; return how many files were fetched."""
    place = remotes.find_remote(project.root, remote)
    if place.can_be_tried:
        remotes.check_reachable(place)
    return project.store.fetch_outputs(lockfile.parse_lock(lock), forgotten_objects(project))


@task(task_run_name="push", description="the new champion's files, to the remote", cache_policy=NO_CACHE)
def push(project: Project, version: Run, remote: str) -> int:
    """Copy the files of a version to a remote; return how many were not there."""
    place = remotes.find_remote(project.root, remote)
    if place.can_be_tried:
        remotes.check_access(place)
    return project.store.push_outputs(project.lock(version), remote, forgotten_objects(project))
