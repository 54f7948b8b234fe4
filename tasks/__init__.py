"""The stages of the pipeline, one module each, and the few parts they share."""

import sys

if sys.argv[:1] == ["-m"]:  # a stage begins to import its libraries, for which memory or files may not suffice
    from tasks import stage

    sys.excepthook = stage.tell
