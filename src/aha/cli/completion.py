"""`aha completion`: the script by which a shell completes commands, options, recipes and runs."""

from typing import Literal

from aha.cli.terminal_text import say


def completion(shell: Literal["bash", "zsh", "fish", "powershell"]) -> None:
    """Print the completion script of a shell, which completes recipes and runs too.

    bash: `mkdir -p ~/.local/share/bash-completion/completions`, then `aha completion bash >
    ~/.local/share/bash-completion/completions/aha`. zsh: into a file `_aha` in a folder of
    `$fpath`. fish: into `~/.config/fish/completions/aha.fish`. PowerShell: into a file that
    `$PROFILE` runs.

    Parameters
    ----------
    shell
        The shell that will read the script.
    """
    from aha.cli.main import app

    say(app.generate_completion(shell=shell))
