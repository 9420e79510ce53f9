"""`aha new-task`: the files of a new task."""

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
    module = name.replace("-", "_")
    say(
        f"{folder}/ has a task, its tests and an entry point. Try:\n"
        f"  aha problems --task {folder}/{module}.py --n 3\n"
        f"  pytest {folder}\n"
        f"  aha train demo --task {folder}/{module}.py"
    )
