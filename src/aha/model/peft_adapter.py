"""Adapters that PEFT wrote, merged into the weights of their base.

What PEFT computes is decided by adapter_config.json: which modules have an adapter, with which rank
and scale. The tensors of the file must be exactly those: PEFT would leave a missing one at its
random start, and drop an unknown one. Supported: LoRA on linear maps and on the embedding, rsLoRA,
DoRA, patterns of ranks and scales, biases, and modules that were trained whole. All else is refused
by its name.
Written for peft 0.21. Sources: Hu et al. 2021 (arXiv 2106.09685), Kalajdzievski 2023 (2312.03732,
rsLoRA), Liu et al. 2024 (2402.09353, DoRA).
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from aha.core.errors import ModelError
from aha.core.findings import Finding, warn
from aha.model.hf_policy import HfPolicy
from aha.model.lora import CONFIG, PREFIX, WEIGHTS
from aha.model.model_json import read_object
from aha.model.policy import Policy
from aha.model.tensors import TensorFiles
from aha.model.transformer import Transformer

DEFAULT_TARGETS = ("q_proj", "v_proj")  # PEFT's for Qwen2, Qwen3, Llama and Mistral
# Starts that change nothing once the file is read; PiSSA, OLoRA and others change the base as well.
STARTS = (True, False, None, "gaussian", "orthogonal", "eva")
SUPPORTED: Mapping[str, tuple[object, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none", "all", "lora_only"),
    "init_lora_weights": STARTS,
}
# Keys that say nothing about what is computed; the rest of those that `PeftAdapter` reads.
NO_EFFECT = frozenset(
    "task_type base_model_name_or_path revision inference_mode lora_dropout auto_mapping "
    "peft_version fan_in_fan_out megatron_core megatron_config runtime_config qalora_group_size "
    "loftq_config eva_config corda_config lora_ga_config".split()
)
READ = frozenset(
    "r lora_alpha target_modules exclude_modules modules_to_save layers_to_transform "
    "layers_pattern rank_pattern alpha_pattern use_rslora use_dora".split()
)
EMBEDDING, HEAD = "model.embed_tokens", "lm_head"
MERGE = "merge it in peft: PeftModel.from_pretrained(BASE, ADAPTER).merge_and_unload(), then "
MERGE += "save_pretrained, with the tokenizer"


@dataclass(frozen=True)
class PeftAdapter:
    """What an adapter_config.json says, checked."""

    path: Path
    rank: int
    alpha: float
    targets: str | list[str]
    exclude: str | list[str]
    saved: list[str]
    layers: list[int] | None
    layers_pattern: list[str]
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    rslora: bool
    dora: bool
    bias: str

    @classmethod
    def read(cls, folder: Path) -> "PeftAdapter":
        """Raises `ModelError`, with the key, for what is not supported or of another kind."""
        path, raw = folder / CONFIG, read_object(folder / CONFIG)
        for key, values in SUPPORTED.items():
            if raw.get(key, values[0]) not in values:
                raise ModelError(f"{path}: {key} {raw[key]!r:.60}", f"one of {values}", MERGE)
        unknown = [k for k, v in raw.items() if v and k not in {*SUPPORTED, *READ, *NO_EFFECT}]
        if unknown:
            raise ModelError(
                f"{path}: {unknown[0]} {raw[unknown[0]]!r:.60}", "an adapter without it", MERGE
            )
        fields = PeftFields(path, raw)
        layers = raw.get("layers_to_transform")
        return cls(
            path,
            int(fields.positive("r", 8, whole=True)),
            fields.positive("lora_alpha", 8),
            fields.names("target_modules") or list(DEFAULT_TARGETS),
            fields.names("exclude_modules"),
            fields.list_of_names("modules_to_save"),
            None if layers in (None, []) else fields.indices(layers),
            fields.list_of_names("layers_pattern"),
            {k: int(fields.checked(v, k, True)) for k, v in fields.table("rank_pattern").items()},
            {k: fields.checked(v, k) for k, v in fields.table("alpha_pattern").items()},
            fields.flag("use_rslora"),
            fields.flag("use_dora"),
            str(raw.get("bias", "none")),
        )

    def adapts(self, name: str, linear: bool) -> bool:
        """Whether PEFT puts an adapter on the module of this name."""
        if self.matches(self.exclude, name) or self.saves(name):
            return False
        if isinstance(self.targets, str) and self.targets.lower() == "all-linear":
            return linear and name != HEAD
        if isinstance(self.targets, str):
            return bool(re.fullmatch(self.targets, name))
        if not self.matches(self.targets, name):
            return False
        if self.layers is None:
            return True
        patterns = self.layers_pattern or [r"[^.]*"]
        matches = (re.match(rf"(?:^|.*?\.){p}\.(\d+)\.", name) for p in patterns)
        number = next((int(match[1]) for match in matches if match), None)
        return number in self.layers

    @staticmethod
    def matches(targets: str | list[str], name: str) -> bool:
        if isinstance(targets, str):
            return bool(targets) and bool(re.fullmatch(targets, name))
        return any(name == target or name.endswith(f".{target}") for target in targets)

    def saves(self, name: str) -> bool:
        """Whether PEFT trains a whole copy of the module."""
        return any(re.match(rf"(^|.*\.){module}($|\..*)", name) for module in self.saved)

    def rank_of(self, name: str) -> int:
        return self.rank_pattern.get(pattern_of(self.rank_pattern, name), self.rank)

    def scale_of(self, name: str) -> float:
        """What multiplies B A: alpha / r, in rsLoRA alpha / sqrt(r)."""
        alpha = self.alpha_pattern.get(pattern_of(self.alpha_pattern, name), self.alpha)
        rank = self.rank_of(name)
        return alpha / (math.sqrt(rank) if self.rslora else rank)


def pattern_of(patterns: Mapping[str, object], name: str) -> str:
    """The first pattern that PEFT finds at the end of a name; "" where there is none."""
    return next((key for key in patterns if re.match(rf"(.*\.)?({key})$", name)), "")


class PeftFields:
    """Values of an adapter_config.json. Each method raises `ModelError` for one of another kind."""

    def __init__(self, path: Path, raw: Mapping[str, Any]):
        self.path, self.raw = path, raw

    def wrong(self, key: str, value: object, expected: str) -> ModelError:
        return ModelError(f"{self.path}: {key} {value!r:.60}", expected, "correct it")

    def checked(self, value: Any, key: str, whole: bool = False) -> float:
        kinds = (int,) if whole else (int, float)
        if type(value) not in kinds or not 0 < value < 1e9:
            raise self.wrong(key, value, f"a {'whole ' if whole else ''}number above 0")
        return value  # type: ignore[no-any-return]

    def positive(self, key: str, default: float, whole: bool = False) -> float:
        return self.checked(self.raw.get(key, default), key, whole)

    def flag(self, key: str) -> bool:
        value = self.raw.get(key)
        if value not in (None, True, False):
            raise self.wrong(key, value, "true or false")
        return bool(value)

    def names(self, key: str) -> str | list[str]:
        """A regular expression, or a list of names; an empty list where there is none."""
        value = self.raw.get(key)
        if isinstance(value, str):
            self.compiled(key, value)
            return value
        return self.list_of_names(key)

    def list_of_names(self, key: str) -> list[str]:
        value = self.raw.get(key) or []
        value = [value] if isinstance(value, str) else value
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            raise self.wrong(key, value, "a list of names")
        for name in value:
            self.compiled(key, name)
        return value

    def table(self, key: str) -> dict[str, Any]:
        value = self.raw.get(key) or {}
        if not isinstance(value, dict):
            raise self.wrong(key, value, "an object, or null")
        for pattern in value:
            self.compiled(key, pattern)
        return value

    def indices(self, value: Any) -> list[int]:
        value = value if isinstance(value, list) else [value]
        if not all(type(index) is int for index in value):
            raise self.wrong("layers_to_transform", value, "numbers of layers")
        return value  # type: ignore[no-any-return]

    def compiled(self, key: str, pattern: str) -> None:
        try:
            re.compile(pattern)
        except re.error as error:
            raise self.wrong(key, pattern, f"a regular expression ({error})") from error


def merge_adapter(policy: Policy, folder: Path) -> tuple[Policy, list[Finding]]:
    """The policy with an adapter in its weights, and what is to be told.

    An adapter on the embedding or on the head unties them, as it does in PEFT: then the returned
    policy is another one. Raises `ModelError` where the file and its configuration do not agree.
    """
    adapter, files = PeftAdapter.read(folder), adapter_tensors(folder)
    weights = dict(policy.weights())
    tied = HEAD + ".weight" not in weights or isinstance(policy, HfPolicy)
    if tied and isinstance(policy, Transformer):
        weights[f"{HEAD}.weight"] = weights[f"{EMBEDDING}.weight"].clone()
    merge = AdapterMerge(adapter, files, weights, transposed_modules(policy))
    with torch.no_grad():
        merge.run()
    if isinstance(policy, HfPolicy):
        refuse_untying(policy, adapter, merge)
        policy.net.load_state_dict(weights)
        return policy, []
    assert isinstance(policy, Transformer), type(policy)
    return rebuilt(policy, weights, folder)


def adapter_tensors(folder: Path) -> TensorFiles:
    """The adapter's tensors, under the names of the modules of the base."""
    path = folder / WEIGHTS
    if not path.is_file():
        pickled = (folder / "adapter_model.bin").is_file()
        got = "adapter_model.bin, a pickle that could run code" if pickled else f"no {WEIGHTS}"
        raise ModelError(f"{folder}: {got}", WEIGHTS, "save it with save_pretrained of peft")
    files = TensorFiles([path])
    for name in list(files.place_of):
        files.rename(name, name.removeprefix(PREFIX))
    return files


def rebuilt(
    policy: Transformer, weights: dict[str, torch.Tensor], folder: Path
) -> tuple[Policy, list[Finding]]:
    """A transformer of these weights: its head is tied where it is the embedding."""
    head, embedding = weights[f"{HEAD}.weight"], weights[f"{EMBEDDING}.weight"]
    findings = []
    if policy.config.tie_word_embeddings:
        if head.shape == embedding.shape and torch.equal(head, embedding):
            del weights[f"{HEAD}.weight"]
        else:
            config = replace(policy.config, tie_word_embeddings=False)
            with torch.device("meta"):
                policy = Transformer(config)
            findings = [
                warn(
                    f"{folder}: the adapter changes one of head and embedding, which the base "
                    "ties: the model has two of them now, as in PEFT",
                    "",
                )
            ]
    policy.load_state_dict(weights, assign=True)
    return policy.requires_grad_(True), findings


def transposed_modules(policy: Policy) -> set[str]:
    """The modules whose weights are [inputs, outputs]: GPT-2's, in `transformers`."""
    if not isinstance(policy, HfPolicy):
        return set()
    modules = policy.net.named_modules()
    return {name for name, module in modules if type(module).__name__ == "Conv1D"}


def refuse_untying(policy: HfPolicy, adapter: PeftAdapter, merge: "AdapterMerge") -> None:
    """Raise for an adapter on a tied embedding or head of a model that `transformers` runs."""
    tied = getattr(policy.net, "all_tied_weights_keys", None) or {}
    touched = {*tied, *tied.values()} & merge.changed
    if touched:
        raise ModelError(
            f"{adapter.path}: an adapter on {sorted(touched)[0]}, which "
            f"{policy.config.architecture} ties to another weight",
            "an adapter on maps that are not tied",
            MERGE,
        )


class AdapterMerge:
    """Adds an adapter's tensors to the weights of its base, in place, and counts what it used."""

    def __init__(
        self,
        adapter: PeftAdapter,
        files: TensorFiles,
        weights: dict[str, torch.Tensor],
        transposed: set[str],
    ):
        self.adapter, self.files, self.weights = adapter, files, weights
        self.transposed = transposed
        self.unused = set(files.place_of)
        self.changed: set[str] = set()  # weights that are no longer those of the base

    def run(self) -> None:
        """Raises `ModelError` for a tensor too many, too few, or of another shape."""
        modules = [n.removesuffix(".weight") for n in self.weights if n.endswith(".weight")]
        matrices = [name for name in modules if self.weights[f"{name}.weight"].ndim == 2]
        adapted = []
        for name in matrices:
            embedding = name.split(".")[-1].startswith(("embed", "wte", "wpe"))
            if self.adapter.adapts(name, not embedding):
                adapted.append((name, embedding))
        self.replace_whole()
        for name, embedding in adapted:
            self.add(name, embedding)
        if not adapted:
            raise ModelError(
                f"{self.adapter.path}: target_modules {self.adapter.targets!r:.80} fits no module",
                f"names such as {', '.join(sorted({n.split('.')[-1] for n in matrices})[:7])}",
                "check that the adapter belongs to this base",
            )
        if self.unused:
            raise ModelError(
                f"{self.adapter.path.parent} has {len(self.unused)} tensors that its "
                f"{CONFIG} does not describe, such as {sorted(self.unused)[0]}",
                "the tensors of the modules that target_modules and modules_to_save name",
                f"check that {CONFIG} belongs to the file",
            )

    def take(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        """A tensor of the file in float32, of this shape and finite."""
        if name not in self.files.place_of:
            raise ModelError(
                f"{self.adapter.path.parent} lacks {PREFIX}{name}",
                f"every tensor that its {CONFIG} describes",
                "save the adapter again, or check that both files are of one adapter",
            )
        tensor = self.files.tensor(name)
        self.unused.discard(name)
        fault = None
        if tuple(tensor.shape) != shape:
            fault = f"has shape {list(tensor.shape)}"
        elif not tensor.is_floating_point():
            fault = f"is {tensor.dtype}"
        elif not torch.isfinite(tensor).all():
            fault = "holds what is no number (NaN or infinite)"
        if fault:
            raise ModelError(
                f"{name} in {self.adapter.path.parent} {fault}",
                f"finite numbers of shape {list(shape)}, which the base and {CONFIG} say",
                "check that the adapter belongs to this base",
            )
        return tensor.float()

    def replace_whole(self) -> None:
        """Modules and biases that were trained whole, and copies of the base's own weights."""
        for name in sorted(self.unused):
            target = name.replace(".base_layer.", ".")
            bias = target.endswith(".bias") and self.adapter.bias != "none"
            whole = self.adapter.saves(target.rpartition(".")[0])
            copied = ".base_layer." in name and target.endswith(".weight")
            if target in self.weights and (bias or whole or copied):
                self.put(target, self.take(name, tuple(self.weights[target].shape)))

    def put(self, name: str, value: torch.Tensor) -> None:
        old = self.weights[name]
        if not torch.equal(old, value.to(old.dtype)):
            self.changed.add(name)
            self.weights[name] = value.to(old.dtype)

    def add(self, name: str, embedding: bool) -> None:
        """B A of one module, times its scale; with DoRA each row at its trained length."""
        weight = self.weights[f"{name}.weight"].float()
        weight = weight.T if name in self.transposed or embedding else weight
        M, N = weight.shape
        rank, scale = self.adapter.rank_of(name), self.adapter.scale_of(name)
        if embedding:
            A = self.take(f"{name}.lora_embedding_A", (rank, N))
            B = self.take(f"{name}.lora_embedding_B", (M, rank))
        else:
            A = self.take(f"{name}.lora_A.weight", (rank, N))
            B = self.take(f"{name}.lora_B.weight", (M, rank))
        merged = weight + scale * (B @ A)
        if self.adapter.dora:
            vector = f"{name}.lora_magnitude_vector"
            stored = vector if vector in self.files.place_of else f"{vector}.weight"
            length = self.take(stored, (M,)) / merged.norm(dim=1)
            merged = merged * length.unsqueeze(1)
        merged = merged.T if name in self.transposed or embedding else merged
        self.put(f"{name}.weight", merged.contiguous())
