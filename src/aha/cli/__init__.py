"""The command line: parses, and opens one door of one room."""
