"""The settings of a run of fine-tuning: the config of its folder. No torch.

Model and optimiser are the sections of a recipe of RL, with the same keys.
"""

from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from aha.core.config import ModelSection, OptimSection, RunConfig
from aha.core.section import BILLION, MILLION, KeptCheckpoints, Section, explain

TINY = 5_000_000  # parameters: below, a model takes larger steps


class PreferenceSection(Section):
    """How pairs are learnt (`aha prefer`). None: as usual for the method, see
    `algo.preferences`."""

    method: Literal["simpo", "dpo"] = "simpo"
    beta: float | None = Field(None, gt=0.0, le=MILLION)
    gamma: float | None = Field(None, ge=0.0, le=MILLION)
    nll: float = Field(0.0, ge=0.0, le=MILLION)  # weight of the chosen completions' own loss


class TuningConfig(Section):
    """Everything that decides the result of a fine-tuning, `steps` included.

    `preference` None: completions are learnt. Else `data` has pairs of them, and `kind` is
    "prefer".
    """

    kind: Literal["sft", "prefer"] = "sft"
    data: str
    bad_rows: Literal["drop", "refuse"] = "drop"
    epochs: int = Field(3, ge=1, le=MILLION)
    examples: int = Field(16, ge=1, le=MILLION)  # of an update
    max_tokens: int = Field(0, ge=0, le=BILLION)  # of an example; 0: the model's context
    steps: int = Field(0, ge=0, le=BILLION)  # follows from the data
    seed: int = 0
    checkpoint_every: int = Field(100, ge=0, le=BILLION)
    keep_last: KeptCheckpoints = (2,)
    usd_per_hour: float | None = Field(None, ge=0.0, le=BILLION)
    watts: float | None = Field(None, ge=0.0, le=BILLION)
    model: ModelSection = ModelSection()
    optim: OptimSection = OptimSection()
    preference: PreferenceSection | None = None

    @model_validator(mode="after")
    def kind_says_what_is_learnt(self) -> "TuningConfig":
        """Readers of a run look at `kind` alone."""
        if (self.kind == "prefer") != (self.preference is not None):
            raise ValueError("kind prefer is one with [preference], and no other")
        return self

    @property
    def recipe(self) -> RunConfig:
        """The recipe with this model and this optimiser, for what reads no other key of one."""
        price = {"usd_per_hour": self.usd_per_hour, "watts": self.watts}
        return RunConfig(seed=self.seed, model=self.model, optim=self.optim, **price)


def tuning_config(raw: dict[str, Any]) -> TuningConfig:
    """The config of raw settings. Raises ConfigError for a value that cannot be."""
    try:
        return TuningConfig.model_validate(raw)
    except ValidationError as error:
        raise explain(error, "", list(TuningConfig.model_fields)) from None


def default_lr(parameters: int, lora_rank: int, pairs: bool = False) -> float:
    """The learning rate where none is given: as usual for AdamW at this size, not tuned here.

    1e-5 is that of s1 and of Sky-T1 for whole models; adapters take ten times as much or more.
    Pairs take a twentieth: Sky-T1-Flash 5e-7.
    """
    usual = 1e-3 if parameters < TINY else 2e-4 if lora_rank else 1e-5
    return usual / 20 if pairs else usual
