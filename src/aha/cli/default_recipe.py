"""The recipe that `aha train` takes where none is named: the largest that fits this machine."""

import sys

from aha.cli.own_command import own_command
from aha.cli.terminal_text import say_line
from aha.core.sizes import GB

# The memory of a CUDA GPU in GB from which a recipe is taken, largest first. A card that is sold
# with 24 GB reports a little less.
BY_MEMORY = ((22.0, "one-gpu-24gb"), (7.0, "laptop-8gb"))
WITHOUT_GPU = "demo"


def recipe_for_this_machine() -> str:
    """The name of the recipe; it and the reason are said on the error stream."""
    from aha.machine.device import accelerator

    name, memory = accelerator()
    recipe = recipe_for(memory.total / GB if memory else None)
    machine = f"{name}, {memory.total / GB:.0f} GB" if memory else "a machine without a CUDA GPU"
    say_line(
        f"aha: no recipe is named: {recipe}, for {machine}; `{own_command()} recipes` lists the "
        "others",
        sys.stderr,
    )
    return recipe


def recipe_for(memory_gb: float | None) -> str:
    """By the memory of the GPU in GB; None where there is none."""
    fitting = (recipe for least, recipe in BY_MEMORY if memory_gb and memory_gb >= least)
    return next(fitting, WITHOUT_GPU)
