"""`aha doctor`."""

from aha.cli.app import Overrides, app


@app.command
def doctor(what: str | None = None, *overrides: Overrides, json: bool = False) -> None:
    """Look for what fails in silence: in this machine, in a recipe's first step, in a run.

    Exit code 0: nothing is broken. 1: something is, with the fix beside it. 2: a wrong command.

    Parameters
    ----------
    what
        nothing for the machine; a recipe (packaged name or TOML file), with
        `--section.key value` as for `aha train`; or a run folder.
    json
        print one JSON object.
    """
    from aha.cli.consulting import consult

    consult(what, overrides, json)
