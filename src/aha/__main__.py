"""`python -m aha`."""

from aha.cli.entry import main

main()
