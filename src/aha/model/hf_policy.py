"""Models of any other architecture, through `transformers` (the extra [hf]).

`AutoModelForCausalLM` computes; here it gets the manners of our own decoder. Slower than ours and
hungrier, because nothing is fused and all logits [B, T, V] of the completions are held at once. Not
for these models: adapters, a critic, GGUF.
Written for transformers 5.23.

Shapes: B rows, T tokens, V vocabulary.
"""

import copy
import inspect
import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from aha.algo.entropy import token_entropy
from aha.core.errors import ModelError
from aha.model import ops
from aha.model.architecture import UnsupportedModel, refuse_quantised
from aha.model.tensors import weight_files

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ENDLESS = 2**20  # positions of a model that names no limit
PROBE = 6  # tokens of a look at whether the future is seen
MAX_PEEK = 1e-3  # change of a logit that counts as rounding, against the logits' deviation


@dataclass(frozen=True)
class HfShape:
    """What others ask a `config.json` for."""

    model_type: str
    architecture: str
    vocab_size: int
    max_position_embeddings: int

    @classmethod
    def of(cls, net: "PreTrainedModel") -> "HfShape":
        text = net.config.get_text_config()
        positions = getattr(text, "max_position_embeddings", None) or ENDLESS
        return cls(net.config.model_type, type(net).__name__, text.vocab_size, positions)


class HfPolicy(nn.Module):
    """A `Policy` whose maths is that of a model of `transformers`."""

    adapter = None
    supports_layout = False

    def __init__(self, net: "PreTrainedModel"):
        super().__init__()
        # For good: with dropout the policy's ratio to itself is not 1 (trap T18).
        self.net = net.eval()
        self.config = HfShape.of(net)
        self.takes = set(inspect.signature(net.forward).parameters)
        self._recompute = False

    @property
    def device(self) -> torch.device:
        return next(self.net.parameters()).device

    @property
    def recompute(self) -> bool:
        return self._recompute

    @recompute.setter
    def recompute(self, wanted: bool) -> None:
        """Layers are computed again where they think that they train; what is inside them does not
        think so, and drops nothing."""
        self._recompute = wanted
        if not wanted:
            return
        if not self.net.supports_gradient_checkpointing:
            raise ModelError(
                f"optim.recompute with {self.config.architecture}, which cannot",
                "a model that can compute its layers again",
                "--optim.recompute false",
            )
        self.net.gradient_checkpointing_enable({"use_reentrant": False})
        for layer in self.net.modules():
            if getattr(layer, "gradient_checkpointing", False):
                layer.training = True
                for name, value in vars(layer).items():
                    if "dropout" in name and isinstance(value, float):
                        setattr(layer, name, 0.0)

    def weights(self) -> dict[str, torch.Tensor]:
        return self.net.state_dict()

    def trainable(self) -> list[nn.Parameter]:
        return list(self.net.parameters())

    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.net.parameters())

    def forward(self, tokens_BT, dtype=torch.float32):
        """Logits [B, T, V] in float32."""
        return self._logits(tokens_BT, 0, dtype).float()

    def token_logprobs(
        self, tokens_BT, start: int = 1, dtype=torch.float32, temperature=1.0, layout=None
    ):
        return self.logprobs_and_entropy(tokens_BT, start, dtype, temperature)[0]

    def logprobs_and_entropy(
        self,
        tokens_BT,
        start: int = 1,
        dtype=torch.float32,
        temperature=1.0,
        entropy=False,
        layout=None,
    ):
        logits_BTV = self.logits(tokens_BT, start, dtype, temperature)
        logprobs_BT = ops.token_logprobs(logits_BTV, tokens_BT[:, start:])
        return logprobs_BT, token_entropy(logits_BTV) if entropy else None

    def logits(self, tokens_BT, start: int = 1, dtype=torch.float32, temperature=1.0):
        """What decides about the tokens from `start` on: [B, T - start, V]."""
        logits_BTV = self._logits(tokens_BT[:, :-1], start - 1, dtype)
        return logits_BTV if temperature == 1.0 else logits_BTV / temperature

    def _logits(self, tokens_BT, first: int, dtype):
        """The logits at the positions from `first` on."""
        kept = tokens_BT.shape[1] - first
        given = {"use_cache": False, "attention_mask": torch.ones_like(tokens_BT)}
        given |= {"logits_to_keep": kept} if "logits_to_keep" in self.takes else {}
        narrow = dtype != torch.float32
        with torch.autocast(self.device.type, dtype) if narrow else nullcontext():
            return self.net(input_ids=tokens_BT, **given).logits[:, -kept:]

    def save(self, folder: Path, dtype: torch.dtype) -> None:
        """Weights and `config.json`, as `transformers` writes them."""
        same = next(self.net.parameters()).dtype == dtype
        net = self.net if same else copy.deepcopy(self.net).to(dtype)
        net.save_pretrained(folder)
        # safetensors makes its files private; the weights are as public as the rest of the folder.
        for path in folder.glob("*.safetensors"):
            shutil.copymode(folder / "config.json", path)

    def fill(self, folder: Path) -> None:
        """Take over the weights that `save` wrote."""
        self.net.load_state_dict(read_net(folder).state_dict())


def load_hf(folder: Path, raw: Mapping, reason: UnsupportedModel) -> HfPolicy:
    """The model of a folder whose `config.json`, `raw`, is not one of ours for this `reason`.

    The weights become float32. Raises `ModelError` where the extra is missing, where the folder
    lacks a weight, and for a model that sees the future.
    """
    try:
        import transformers  # noqa: F401
    except ImportError as error:
        raise ModelError(
            reason.got,
            f"{reason.wanted}; or the extra [hf], which runs what transformers knows",
            "pip install 'aha[hf]'",
        ) from error
    refuse_quantised(raw)
    policy = HfPolicy(read_net(folder))
    refuse_seers(policy, folder)
    return policy


def read_net(folder: Path) -> "PreTrainedModel":
    """The model as `transformers` reads it from this folder: nothing from the network, no code of
    others, no pickle, and not one weight that the folder does not hold."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    weight_files(folder)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        net, found = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=torch.float32,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except Exception as error:  # a config may be wrong in as many ways as there are models
        fault = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelError(
            f"transformers cannot read {folder}: {fault}",
            "a causal language model that transformers knows, with its weights",
        ) from error
    strange = [*found["missing_keys"], *found["mismatched_keys"]]
    if strange:
        name = strange[0] if isinstance(strange[0], str) else strange[0][0]
        raise ModelError(
            f"{folder}: {len(strange)} weights of a {net.config.model_type} are missing or of "
            f"another shape, such as {name}",
            "every weight: transformers would draw those at random",
            "check that config.json belongs to these weights",
        )
    return net


@torch.no_grad()
def refuse_seers(policy: HfPolicy, folder: Path) -> None:
    """A model in which a token changes what was said before it has no log-probs to train."""
    tokens_BT = torch.arange(PROBE).repeat(2, 1) % policy.config.vocab_size
    tokens_BT[1, -1] = (tokens_BT[1, -1] + 1) % policy.config.vocab_size
    logits_BTV = policy(tokens_BT.to(policy.device))
    change = (logits_BTV[0, :-1] - logits_BTV[1, :-1]).abs().max()
    if not change <= MAX_PEEK * logits_BTV.std():  # NaN as well
        raise ModelError(
            f"{folder}: {policy.config.architecture} changes what it said when a later token does",
            "a causal model",
            "a decoder: this one may be an encoder, or its weights are no numbers",
        )


def refuse_hf_policy(policy, what: str, fix: str) -> None:
    """Raise for a model that `transformers` runs where only our own decoder will do."""
    if isinstance(policy, HfPolicy):
        raise ModelError(
            f"{what} with {policy.config.architecture}, which runs in transformers",
            "one of Qwen2.5, Qwen3, Llama-3.2, SmolLM2 and Mistral",
            fix,
        )
