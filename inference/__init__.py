"""The trained classifier at work: photos in, answers out. Knows nothing of Prefect or DVC."""
