"""`aha new-task`: the files of a new task."""

from aha.cli.own_command import own_command
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
    path, typed = folder / f"{name.replace('-', '_')}.py", own_command()
    say(
        f"{folder}/ has a task, its tests and an entry point. It works as it is; try, then change "
        f"{path}:\n"
        f"  {typed} train demo --task {path}\n"
        f"  {typed} problems --task {path} --n 3\n"
        f"  {typed} doctor demo --task {path}\n"
        f"  pytest {folder}"
    )
