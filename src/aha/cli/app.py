"""The command line's trunk: `*_commands` modules hang their commands on it.

A command imports its room only when it is called, so that help is instant.
"""

from typing import Annotated, Literal

from cyclopts import App, Parameter, validators

import aha

app = App(
    name="aha",
    help="Train a language model to reason with reinforcement learning, and watch it happen.",
    version=aha.__version__,
)
config_app = App(name="config", help="Recipes and their keys.")
app.command(config_app)

# The type of one word: cyclopts gathers the words of a starred argument by itself.
Overrides = Annotated[str, Parameter(show=False, allow_leading_hyphen=True)]
Count = Annotated[int, Parameter(validator=validators.Number(gte=1))]
Natural = Annotated[int, Parameter(validator=validators.Number(gte=0))]
Amount = Annotated[float, Parameter(validator=validators.Number(gte=0))]
Split = Literal["train", "validation", "test", "test_targets"]
