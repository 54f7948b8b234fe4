"""`python -m tasks.export`."""

from tasks import stage
from tasks.export import main

stage.run(main)
