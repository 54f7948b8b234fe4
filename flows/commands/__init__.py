"""The commands of `pawline`, a module a subject; `flows/cli.py` puts them together. Each imports late what is slow."""
