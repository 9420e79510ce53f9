"""`python -m aha`."""

from aha.cli.main import run

run()
