"""Help the chief of TF_CONFIG to train, in both stages and in every run, until this is ended (Ctrl-C).

Asks the chief again and again. When it trains, this runs the same stage in the same folder as another worker, and waits
for the next one. Nothing is written here.

python -m tasks.training_worker    (with a TF_CONFIG of its own)
"""

import logging
import subprocess
import sys
import time
from pathlib import Path

from tasks import stage, workers
from tasks.stage import PawlineError

log = logging.getLogger(__name__)

STAGES = ("train_head", "fine_tune")
ASK_SECONDS = 1.0


def help_chief(cluster: workers.Cluster) -> None:
    """Run one stage after the other with the chief; does not return."""
    log.info("waiting for %s to train", cluster.name(0))
    while True:
        answer = workers.ask_chief(cluster, {"ask": "stage"}, workers.ANSWER_SECONDS)
        if answer.get("stage") in STAGES:
            if not Path(answer["folder"]).is_dir():
                raise PawlineError(
                    f"the chief works in {answer['folder']}, and that is not here: share it under the same path"
                )
            command = [sys.executable, "-m", f"tasks.{answer['stage']}"]
            done = subprocess.run(command, cwd=answer["folder"], check=False)  # noqa: S603 - our own module
            how = "done" if done.returncode == 0 else f"ended with exit code {done.returncode}"
            log.info("%s: %s; waiting for %s to train", answer["stage"], how, cluster.name(0))
        time.sleep(ASK_SECONDS)


def main(argv: list[str] | None = None) -> None:
    """Run the worker from the command line."""
    stage.parser(__doc__).parse_args(argv)
    cluster = workers.read_cluster()
    if cluster is None or cluster.number == 0:
        raise PawlineError(
            f"{workers.TF_CONFIG} must list several workers and say which of them this is, another than the first: "
            "docs/operations.md has an example"
        )
    help_chief(cluster)


if __name__ == "__main__":
    stage.run(main)
