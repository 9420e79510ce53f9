"""The options of `aha distill`, `aha prefer` and `aha select` that belong together, as flags."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter, validators

from aha.cli.parameters import (
    AT_LEAST_0,
    AT_LEAST_1,
    Budget,
    UsdPerHour,
    Watts,
    whole,
)
from aha.cli.sft import (
    CheckpointEvery,
    Dtype,
    Lr,
    MicroBatch,
    Rank,
    TunedOn,
    Warmup,
    model_keys,
)
from aha.core.errors import ConfigError


def count_of(meaning: str) -> Parameter:
    """A whole number from 1."""
    return Parameter(converter=whole, validator=AT_LEAST_1, help=meaning)


def number_of(meaning: str) -> Parameter:
    """A number from 0."""
    return Parameter(validator=AT_LEAST_0, negative=(), help=meaning)


Prices = tuple[float, float] | None
Frame = Literal["plain", "r1", "instruct"] | None
Tests = Annotated[
    int,
    Parameter(
        converter=whole,
        validator=AT_LEAST_0,
        help="Held-out problems before and after; 0: no test.",
    ),
]
TokenLimit = Annotated[
    int | None,
    count_of(
        "Token limit of a completion. Default: that of the run; else 320 for Countdown with three "
        "numbers and 1024 for anything else."
    ),
]
BothNames = Annotated[
    str | None,
    Parameter(
        help="Name of the folders in data/ and runs/; without it, numbered. What was stopped goes "
        "on under its name."
    ),
]


@dataclass(frozen=True)
class AnswerOptions:
    """How a teacher is asked."""

    per_problem: Annotated[int, count_of("Answers to each problem.")] = 1
    temperature: Annotated[float, Parameter(help="Sampling temperature of the teacher.")] = 1.0
    teacher_model: Annotated[
        str | None,
        Parameter(help="Name of the model at the endpoint; not needed where it serves one alone."),
    ] = None
    teacher_api: Annotated[
        Literal["chat", "text"],
        Parameter(
            help="chat: /v1/chat/completions; text: /v1/completions, with the prompt as the "
            "student reads it."
        ),
    ] = "chat"
    teacher_template: Annotated[
        Frame,
        Parameter(
            help="Frame of the teacher's prompts. Default: that of its own run; for a chat "
            "instruct."
        ),
    ] = None
    teacher_price: Annotated[
        Prices,
        number_of(
            "USD for a million tokens of prompts, and of answers; without it the price of an "
            "endpoint is not known."
        ),
    ] = None
    workers: Annotated[int, count_of("Requests to an endpoint at the same time.")] = 4
    timeout: Annotated[
        float,
        Parameter(
            validator=validators.Number(gt=0, lte=10**9),
            help="Seconds to wait for an answer before the request is sent again.",
        ),
    ] = 120.0
    tries: Annotated[int, count_of("Tries of a request before it counts as without an answer.")] = 6
    reuse: Annotated[
        Path | None,
        Parameter(
            help="Folder of another distillation, whose answers are taken where teacher, prompt "
            "and limits are the same."
        ),
    ] = None


@dataclass(frozen=True)
class ExampleOptions:
    """Which answers become examples."""

    keep: Annotated[
        Literal["right", "all"],
        Parameter(
            help="right: wrong answers are dropped, by the task's own grade; all: they are learnt "
            "too."
        ),
    ] = "right"
    prefer: Annotated[
        Literal["first", "shortest"],
        Parameter(help="Which answers to a problem come first: first as drawn, or shortest."),
    ] = "first"
    at_most: Annotated[
        int,
        Parameter(
            converter=whole,
            validator=AT_LEAST_0,
            help="Examples of a problem; 0: all its different answers.",
        ),
    ] = 0
    rewrite: Annotated[
        str,
        Parameter(
            help="none; rule: the tags are put in by a rule; or the address of an endpoint that "
            "rewrites."
        ),
    ] = "none"
    rewrite_model: Annotated[
        str | None,
        Parameter(help="Name of the model at that endpoint. A key is read from AHA_REWRITE_KEY."),
    ] = None
    rewrite_price: Annotated[
        Prices, number_of("USD for a million tokens that the rewriter reads, and writes.")
    ] = None
    mix: Annotated[
        list[Path] | None,
        Parameter(
            negative=(),
            consume_multiple=True,
            help="Files of other examples, in any form that `aha sft` reads.",
        ),
    ] = None
    mix_share: Annotated[
        float | None,
        number_of("Share of the examples that come from them; without it all of their rows."),
    ] = None

    def checked_rewriter(self) -> str:
        """The value of --rewrite. Raises ConfigError for one that is none."""
        if self.rewrite in ("none", "rule") or self.rewrite.startswith(("http://", "https://")):
            return self.rewrite
        raise ConfigError(
            f"--rewrite {self.rewrite!r}",
            "none, rule, or the address of an endpoint",
            "--rewrite rule",
        )


Strength = float | None


@dataclass(frozen=True)
class PairOptions:
    """Which pairs there are, and how they are learnt."""

    last: Annotated[int, count_of("Steps of a run whose completions are taken, the last ones.")] = (
        20
    )
    pairs: Annotated[
        Literal["both", "shorter", "right"],
        Parameter(
            help="shorter: shortest right over longest right; right: shortest right over shortest "
            "wrong; both."
        ),
    ] = "both"
    most: Annotated[
        float,
        Parameter(
            validator=validators.Number(gt=0, lte=1),
            help="A pair of two right completions is made where the shorter has at most this share "
            "of the tokens of the longer.",
        ),
    ] = 0.8
    method: Annotated[
        Literal["simpo", "dpo"],
        Parameter(
            help="simpo: the mean log-prob is the score; dpo: the ratio to the model before "
            "training."
        ),
    ] = "simpo"
    beta: Annotated[
        Strength, number_of("Strength of the scores. Default: 2 for simpo, 0.1 for dpo.")
    ] = None
    gamma: Annotated[
        Strength,
        number_of("Margin that the chosen one has to win by. Default: 0.5 for simpo, 0 for dpo."),
    ] = None
    nll: Annotated[
        float, number_of("Weight of the chosen completions' own loss beside that of the pairs.")
    ] = 0.0


@dataclass(frozen=True)
class TrainingOptions:
    """How a student is fine-tuned; epochs and examples of an update are the command's own."""

    lr: Lr = None
    warmup: Warmup = None
    lora_rank: Rank = None
    device: TunedOn = None
    dtype: Dtype = None
    micro_batch_tokens: MicroBatch = None
    checkpoint_every: CheckpointEvery = 100
    budget: Budget = None
    usd_per_hour: UsdPerHour = None
    watts: Watts = None

    def raw(self, model: str, epochs: int, examples: int, seed: int) -> dict[str, Any]:
        """The settings of the run, without its data."""
        of_model = {"path": model, "device": self.device, "lora_rank": self.lora_rank}
        names = ("lr", "warmup", "dtype", "micro_batch_tokens")
        of_optim = {name: getattr(self, name) for name in names}
        raw: dict[str, Any] = {"data": "", "epochs": epochs, "examples": examples, "seed": seed}
        raw |= {"checkpoint_every": self.checkpoint_every}
        raw |= {"usd_per_hour": self.usd_per_hour, "watts": self.watts}
        return raw | {"model": model_keys(of_model), "optim": model_keys(of_optim)}


Answering = Annotated[AnswerOptions | None, Parameter(name="*")]
Choosing = Annotated[ExampleOptions | None, Parameter(name="*")]
Pairing = Annotated[PairOptions | None, Parameter(name="*")]
Training = Annotated[TrainingOptions | None, Parameter(name="*")]
