"""Models of any other architecture, run by `transformers` (the extra [hf]).

`AutoModelForCausalLM` computes; `HfPolicy` gives it the interface of our own transformer. It is
slower and needs more memory, because nothing is fused and all logits [B, T, V] of the completions
are held at once. Not available for these models: adapters, a critic, GGUF.
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
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from aha.algo.entropy import token_entropy
from aha.batching.layout import Layout
from aha.core.errors import ModelError
from aha.core.findings import Finding, ok, warn
from aha.model import ops
from aha.model.config_keys import UnsupportedModel, refuse_quantised
from aha.model.language_part import NAMES, language_config, language_name
from aha.model.model_json import read_object
from aha.model.tensors import TensorFiles, weight_files

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ENDLESS = 2**20  # positions of a model that names no limit
LAYER_KEYS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers")
TIMES_LARGER = 4  # a head or an embedding may be tied, so written once for two
PROBE_TOKENS = 6  # of the test that a model is causal
MAX_CHANGE = 1e-3  # of a logit, over the logits' standard deviation: more is not rounding


@dataclass(frozen=True)
class HfShape:
    """The fields of `config.json` that other rooms use."""

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
    """A `Policy` that `transformers` computes."""

    adapter = None
    supports_layout = False

    def __init__(self, net: "PreTrainedModel", reason: str = "", supported: str = ""):
        super().__init__()
        # Why it is not a `Transformer`, and what would be one.
        self.reason, self.supported = reason, supported
        self.findings: list[Finding] = []  # what is to be told about its weights
        self.is_part = False  # it was read as the language part of another model
        # In eval mode for ever: dropout would draw another network for every pass, and the ratio of
        # a policy to itself would not be 1.
        self.net = net.eval()
        self.config = HfShape.of(net)
        self.options = set(inspect.signature(net.forward).parameters)
        self._recompute = False

    @property
    def device(self) -> torch.device:
        first: nn.Parameter = next(self.net.parameters())
        return first.device

    @property
    def recompute(self) -> bool:
        return self._recompute

    @recompute.setter
    def recompute(self, enabled: bool) -> None:
        """`transformers` recomputes a layer only in training mode, so the layers are put into it,
        but not the modules inside them: those stay in eval mode, without dropout."""
        self._recompute = enabled
        if not enabled:
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
        return dict(self.net.state_dict())

    def trainable(self) -> list[nn.Parameter]:
        return list(self.net.parameters())

    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.net.parameters())

    def forward(self, tokens_BT: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Logits [B, T, V] in float32."""
        return self._logits(tokens_BT, 0, dtype).float()

    def token_logprobs(
        self,
        tokens_BT: torch.Tensor,
        start: int = 1,
        dtype: torch.dtype = torch.float32,
        temperature: float = 1.0,
        layout: Layout | None = None,
    ) -> torch.Tensor:
        """As in `Policy`; a layout is ignored."""
        return self.logprobs_and_entropy(tokens_BT, start, dtype, temperature)[0]

    def logprobs_and_entropy(
        self,
        tokens_BT: torch.Tensor,
        start: int = 1,
        dtype: torch.dtype = torch.float32,
        temperature: float = 1.0,
        entropy: bool = False,
        layout: Layout | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """As in `Policy`; a layout is ignored."""
        logits_BTV = self.logits(tokens_BT, start, dtype, temperature)
        logprobs_BT = ops.token_logprobs(logits_BTV, tokens_BT[:, start:])
        return logprobs_BT, token_entropy(logits_BTV) if entropy else None

    def logits(
        self,
        tokens_BT: torch.Tensor,
        start: int = 1,
        dtype: torch.dtype = torch.float32,
        temperature: float = 1.0,
    ) -> torch.Tensor:
        """The logits that predict the tokens from `start` on: [B, T - start, V]."""
        logits_BTV = self._logits(tokens_BT[:, :-1], start - 1, dtype)
        return logits_BTV if temperature == 1.0 else logits_BTV / temperature

    def _logits(self, tokens_BT: torch.Tensor, first: int, dtype: torch.dtype) -> torch.Tensor:
        """The logits at the positions from `first` on."""
        kept = tokens_BT.shape[1] - first
        options: dict[str, Any] = {
            "use_cache": False,
            "attention_mask": torch.ones_like(tokens_BT),
        }
        if "logits_to_keep" in self.options:
            options["logits_to_keep"] = kept
        narrow = dtype != torch.float32
        with torch.autocast(self.device.type, dtype) if narrow else nullcontext():
            logits_BTV: torch.Tensor = self.net(input_ids=tokens_BT, **options).logits
            return logits_BTV[:, -kept:]

    def save(self, folder: Path, dtype: torch.dtype) -> None:
        """Weights and `config.json`, as `transformers` writes them."""
        same = next(self.net.parameters()).dtype == dtype
        net = self.net if same else copy.deepcopy(self.net).to(dtype)
        # A part is a model of its own now: its tensors do not get the names of the wrapper back.
        net.save_pretrained(folder, save_original_format=not self.is_part)
        # safetensors makes its files private; the weights are as public as the rest of the folder.
        for path in folder.glob("*.safetensors"):
            shutil.copymode(folder / "config.json", path)

    def fill(self, folder: Path) -> None:
        """Load the weights that `save` wrote."""
        raw = read_object(folder / "config.json")
        self.net.load_state_dict(read_net(folder, raw)[0].state_dict())


def load_hf(folder: Path, raw: Mapping[str, Any], reason: UnsupportedModel) -> HfPolicy:
    """The model of a folder whose `config.json`, `raw`, our transformer does not support for this
    `reason`.

    The weights become float32. Raises `ModelError` where the extra is missing, where the folder
    lacks a weight, and for a model that is not causal.
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
    net, unread = read_net(folder, raw)
    policy = HfPolicy(net, reason.got, reason.wanted)
    policy.is_part = net.config.model_type != raw.get("model_type")
    policy.findings.append(
        ok(
            f"{folder}: {policy.config.architecture} of transformers computes this model, because "
            f"of its {reason.got}: slower than ours, and without adapters, critic and GGUF"
        )
    )
    if unread:
        policy.findings.append(
            warn(
                f"{folder} holds {len(unread)} tensors that {policy.config.architecture} of "
                f"transformers does not read, such as {unread[0]}",
                "check that config.json belongs to these weights",
            )
        )
    refuse_noncausal(policy, folder)
    return policy


def read_net(folder: Path, raw: Mapping[str, Any]) -> tuple["PreTrainedModel", list[str]]:
    """The model as `transformers` reads it from this folder, and the names of tensors that it does
    not read: nothing from the network, no code of others, no pickle, and not one weight that the
    folder does not hold."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        refuse_layers(folder, raw)
        config, names = net_config(folder, raw)
        refuse_oversize(folder, config)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            key_mapping=names,
            dtype=torch.float32,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
        net: PreTrainedModel = loaded[0]
        info = loaded[1]
    except ModelError:
        raise
    except Exception as error:  # a config may be wrong in as many ways as there are models
        raise ModelError(
            f"transformers cannot read {folder}: {cause_of(error, raw)}",
            "a causal language model that transformers knows, with its weights",
        ) from error
    # Keys that do not match come with both shapes, keys that are missing alone.
    keys = [*info["missing_keys"], *info["mismatched_keys"]]
    if keys:
        name = keys[0] if isinstance(keys[0], str) else keys[0][0]
        raise ModelError(
            f"{folder}: {len(keys)} weights of a {net.config.model_type} are missing or of "
            f"another shape, such as {name}",
            "every weight: transformers would draw those at random",
            "check that config.json belongs to these weights",
        )
    unread = info["unexpected_keys"]
    if names:  # the other parts are told of by name where the folder is read
        unread = [name for name in unread if language_name(name)]
    return net, sorted(unread)


def net_config(folder: Path, raw: Mapping[str, Any]) -> tuple[Any, dict[str, str] | None]:
    """The configuration of what is to be read, and how the names of its tensors change: of a model
    that wraps a language model which `transformers` knows alone, that of the language part."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    inner, settings = config.get_text_config(), language_config(raw)
    if settings is None or type(inner) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return config, None
    names = map(language_name, TensorFiles(weight_files(folder)).place_of)
    tied = settings.get("tie_word_embeddings", inner.tie_word_embeddings)
    inner.tie_word_embeddings = tied or "lm_head.weight" not in names
    return inner, NAMES


def cause_of(error: Exception, raw: Mapping[str, Any]) -> str:
    """Why `transformers` could not read a model, in one line."""
    text, kind = " ".join(str(error).split()), raw.get("model_type")
    if "does not recognize this architecture" in text and raw.get("auto_map"):
        return f"model_type {kind!r:.60} needs code from the folder (auto_map), which is not run"
    if "Unrecognized configuration class" in text:
        return f"it has no causal language model for model_type {kind!r:.60}"
    return text[:200] or type(error).__name__


def refuse_layers(folder: Path, raw: Mapping[str, Any]) -> None:
    """Raise `ModelError` where config.json describes more layers than the files hold tensors:
    `transformers` makes lists of layers as soon as it reads the configuration."""
    files, text = TensorFiles(weight_files(folder)), raw.get("text_config")
    contents = [raw, text if isinstance(text, dict) else {}]
    counts = [content.get(key) for content in contents for key in LAYER_KEYS]
    layers = max((n for n in counts if type(n) is int), default=0)
    if layers > len(files.place_of):
        raise oversize(folder, f"{layers:.3g} layers", files)


def refuse_oversize(folder: Path, config: Any) -> None:
    """Raise `ModelError` where a configuration describes a far larger model than the files hold:
    `transformers` would allocate it, and draw its weights at random."""
    from transformers import AutoModelForCausalLM

    files = TensorFiles(weight_files(folder))
    with torch.device("meta"):  # shapes alone
        net = AutoModelForCausalLM.from_config(config)
    described = sum(parameter.numel() for parameter in net.parameters())
    if described > TIMES_LARGER * files.numbers():
        raise oversize(folder, f"{described:.3g} numbers", files)


def oversize(folder: Path, described: str, files: TensorFiles) -> ModelError:
    return ModelError(
        f"{folder}: config.json describes {described}, and its files hold "
        f"{len(files.place_of)} tensors with {files.numbers():.3g} numbers",
        "the configuration of the model that is in the files",
        "check that config.json belongs to these weights",
    )


@torch.no_grad()
def refuse_noncausal(policy: HfPolicy, folder: Path) -> None:
    """Raise for a model in which a token changes the logits before it: such a model has no
    log-probs of a completion, so there is nothing to train."""
    tokens_BT = torch.arange(PROBE_TOKENS).repeat(2, 1) % policy.config.vocab_size
    tokens_BT[1, -1] = (tokens_BT[1, -1] + 1) % policy.config.vocab_size
    try:
        logits_BTV = policy(tokens_BT.to(policy.device))
    except Exception as error:  # settings that contradict each other show in the first product
        raise ModelError(
            f"{folder}: {policy.config.architecture} of transformers cannot compute: "
            f"{' '.join(str(error).split())[:200]}",
            "a configuration that it can compute",
            f"see {policy.reason or 'config.json'}",
        ) from error
    change = (logits_BTV[0, :-1] - logits_BTV[1, :-1]).abs().max()
    if not change <= MAX_CHANGE * logits_BTV.std():  # NaN as well
        raise ModelError(
            f"{folder}: {policy.config.architecture} changes its logits when a later token changes"
            + (f" ({policy.reason})" if policy.reason else ""),
            "a causal model",
            "use a causal language model: this one may be an encoder, or its weights hold NaN",
        )


def refuse_hf_policy(policy: object, feature: str, fix: str) -> None:
    """Raise `ModelError` for a model that `transformers` runs, where a feature needs our own."""
    if isinstance(policy, HfPolicy):
        because = f" because of its {policy.reason}" if policy.reason else ""
        raise ModelError(
            f"{feature} with {policy.config.architecture}, which runs in transformers{because}",
            policy.supported or "one of Qwen2.5, Qwen3, Llama-3.2, SmolLM2 and Mistral",
            fix,
        )
