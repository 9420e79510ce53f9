"""`aha new-task`: the files of a new task."""

from aha.cli.own_command import as_typed_here
from aha.cli.terminal_text import say


def new_task(name: str) -> None:
    """Write a small package for a task of your own, with tests, in a new folder NAME.

    Parameters
    ----------
    name
        Name of the task and of its folder.
    """
    from aha.tasks.scaffold import new_task as write_task

    folder = write_task(name)
    path = folder / f"{name.replace('-', '_')}.py"
    say(
        f"{folder}/ has a task, its tests and an entry point. It works as it is; try, then change "
        f"{path}:"
    )
    for line in (
        f"aha train demo --task {path}",
        f"aha problems --task {path} --n 3",
        f"aha doctor demo --task {path}",
        "pip install pytest",
        f"python -m pytest {folder}",
    ):
        say(f"  {as_typed_here(line)}")
