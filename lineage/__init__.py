"""Where a model came from, and the proof, read from git, dvc.lock and DVC's cache."""
