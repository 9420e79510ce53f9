"""`aha new-task`: the beginning of your own task."""


def new_task(name: str) -> None:
    """Begin a task of your own: a small tested package in a new folder NAME.

    Parameters
    ----------
    name
        Name of the task and of its folder.
    """
    from aha.tasks.scaffold import new_task as write_task

    folder = write_task(name)
    module = name.replace("-", "_")
    print(
        f"{folder}/ has a task, its tests and an entry point. Try:\n"
        f"  aha problems --task {folder}/{module}.py --n 3\n"
        f"  pytest {folder}\n"
        f"  aha train demo --task {folder}/{module}.py"
    )
