"""A loaded model that writes completions: `aha.load` and `aha.generate`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aha.core.errors import ConfigError, ModelError, shown
from aha.core.records import Problem, Prompt
from aha.model.folders import resolve_model
from aha.model.weights import LoadedModel, load_model
from aha.rollout.engine import Sampling
from aha.rollout.native import open_engine
from aha.tasks.reward_rows import PROMPT, prompt_of

PromptText = str | Sequence[Mapping[str, str]]  # a text, or messages with a role and a content


@dataclass(frozen=True)
class Written:
    """A text that a model wrote. `finish` is "stop", or "length" where the token limit ended it;
    `logprob` is that of all `tokens` together, in nats."""

    prompt: str
    text: str
    finish: str
    tokens: int
    logprob: float

    def __str__(self) -> str:
        return self.text


class TextModel:
    """A model with its engine, in memory. `name` is what it was loaded by."""

    def __init__(self, name: str, loaded: LoadedModel):
        self.name, self.path = name, loaded.path
        self.tokenizer, self._policy = loaded.tokenizer, loaded.policy
        self.parameters = loaded.policy.num_parameters()
        self.positions = int(loaded.policy.config.max_position_embeddings)
        self._engine = open_engine(loaded.policy, loaded.tokenizer)

    def generate(
        self,
        prompts: PromptText | Sequence[PromptText],
        *,
        n: int = 1,
        max_new_tokens: int = 320,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> list[Written]:
        """`n` completions of every prompt, those of the first prompt first.

        A text is read by the model as it stands; messages become a conversation in the form of its
        chat template. `max_new_tokens` is at most what the longest prompt leaves of the model's
        positions; temperature 0 takes the most likely token; the same seed gives the same texts.
        Raises `ModelError` for a prompt that the model cannot read.
        """
        read = [self.prompt(prompt, place) for place, prompt in enumerate(as_prompts(prompts))]
        left = self.positions - max((len(prompt.tokens) for prompt in read), default=0)
        if left < 1:
            raise ModelError(
                f"a prompt of {self.positions - left} tokens",
                f"fewer than the {self.positions} positions of {self.name}",
                "a shorter prompt",
            )
        sampling = Sampling(min(max_new_tokens, left), n, temperature, seed)
        groups = self._engine.generate(read, sampling) if read else []
        return [
            Written(c.prompt.text, c.text, c.finish, len(c.tokens), sum(c.logprobs))
            for group in groups
            for c in group
        ]

    def prompt(self, prompt: PromptText, place: int) -> Prompt:
        """A prompt as the model reads it. Raises `ConfigError` for what is none."""
        read = prompt_of({PROMPT: prompt if isinstance(prompt, str) else list(prompt)})
        if read is None:
            raise ConfigError(
                f"the prompt {shown(prompt)}",
                "a text, or a list of {'role': ..., 'content': ...}",
                "generate('2 + 3 =')",
            )
        text = read if isinstance(read, str) else self.tokenizer.converse(read)
        tokens = tuple(self.tokenizer.encode(text))
        return Prompt(Problem(f"prompt/{place}", "prompt", {}), text, tokens)

    def __repr__(self) -> str:
        return f"<model {self.name!r}: {self.parameters / 1e6:.2f} M parameters>"


def as_prompts(prompts: object) -> list[PromptText]:
    """A list of prompts from one prompt or several. Raises `ConfigError` for what is neither."""
    if isinstance(prompts, str):
        return [prompts]
    usable = isinstance(prompts, Iterable) and not isinstance(prompts, Mapping)
    several: list[Any] | None = list(prompts) if usable and isinstance(prompts, Iterable) else None
    if several and all(isinstance(part, Mapping) for part in several):
        return [several]  # the messages of one conversation
    if several is None or not all(isinstance(p, str | list | tuple) for p in several):
        raise ConfigError(
            f"the prompts {shown(prompts)}", "a text or a list of them", "['2 + 3 =']"
        )
    return several


def load(model: str | Path) -> TextModel:
    """The model of a name that `resolve_model` understands, in memory."""
    return TextModel(str(model), load_model(resolve_model(str(model))))
