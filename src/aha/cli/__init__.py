"""The command line: one module for each command, which calls another room."""
