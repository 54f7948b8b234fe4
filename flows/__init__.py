"""Prefect flows over the graph of dvc.yaml, and the command line."""

import logging

# Prefect takes the lines of this logger into a run's log (`extra_loggers` in prefect.toml), but not its level.
logging.getLogger(__name__).setLevel(logging.INFO)
