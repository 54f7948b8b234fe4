"""Prefect flows over the graph of dvc.yaml, and the command line."""
