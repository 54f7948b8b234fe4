"""`python -m tasks.report`."""

from tasks import stage
from tasks.report import main

stage.run(main)
