"""The program's entry point: one clear line on Windows, else the command line."""

import sys

WINDOWS = (
    "aha: this is Windows; wanted Linux or macOS; fix: WSL, which is a Linux within Windows: "
    "`wsl --install` in PowerShell, then the same commands in its terminal"
)


def main() -> None:
    """Run the command line. Exit code 2 on Windows, before any import that would fail there."""
    if sys.platform == "win32":
        sys.stderr.write(f"{WINDOWS}\n")
        sys.exit(2)
    from aha.cli.main import run

    run()
