"""Versions of the model, the champion among them, and the decisions that made it so: all in git, without a server."""

import logging

logging.getLogger(__name__).setLevel(logging.INFO)
