"""Whose names the tensors of a file have: those of the model, or of something around it.

`transformers` loads a file whose names do not match with random weights and a warning. Here that
is an error, and this module says what is the matter.
"""

from collections.abc import Collection

from aha.core.errors import ModelError

# Prefixes that wrappers put before every name: (whose they are, how to save without them).
WRAPPERS = {
    "_orig_mod.": ("torch.compile", "save model._orig_mod, the model inside, with save_pretrained"),
    "module.": ("DataParallel", "save model.module, the model inside, with save_pretrained"),
    "_fsdp_wrapped_module.": ("FSDP", "save the full state dict, with save_pretrained"),
    "base_model.model.": ("PEFT", "save what merge_and_unload() returns, with save_pretrained"),
    "language_model.": ("a model of text and images", "save its language model alone"),
    "model.language_model.": ("a model of text and images", "save its language model alone"),
}
QUANTISED: tuple[str, ...] = (
    "qweight",
    "qzeros",
    "g_idx",
    "weight_scale",
    "weight_scale_inv",
    "quant_state",
)
QUANTISED += ("absmax", "quant_map", "SCB", "scales", "biases")
HEADS = ("score.", "classifier.", "qa_outputs.", "v_head.", "value_head.", "reward_head.")


def base_model_name(name: str, expected: Collection[str]) -> str:
    """The name with `model.` before it, where only that is among the expected ones: a file that
    was saved from the backbone alone, which `transformers` reads so too."""
    longer = f"model.{name}"
    return longer if name not in expected and longer in expected else name


def refuse_names(names: Collection[str], expected: Collection[str], where: object) -> None:
    """Raise `ModelError` where the names of a file are not the expected ones, with the cause."""
    missing, extra = sorted(set(expected) - set(names)), sorted(set(names) - set(expected))
    if not missing and not extra:
        return
    wrapped = {name: prefix for name in extra for prefix in WRAPPERS if name.startswith(prefix)}
    if wrapped:
        name, prefix = next(iter(wrapped.items()))
        owner, fix = WRAPPERS[prefix]
        raise ModelError(
            f"the weights in {where} are named as {owner} names them, such as {name}",
            "the names of the model itself",
            fix,
        )
    quantised = [name for name in extra if name.split(".")[-1] in QUANTISED]
    if quantised:
        raise ModelError(
            f"the weights in {where} are quantised: they have {quantised[0]}",
            "weights in float32, bfloat16 or float16",
            "use the model that it was made from",
        )
    heads = [name for name in extra if name.startswith(HEADS)]
    if heads:
        raise ModelError(
            f"the weights in {where} have another head, {heads[0]}",
            "a causal language model; transformers would leave that head out",
            "use the language model that it was made from, or take the head out of the file",
        )
    if missing == ["lm_head.weight"] and not extra:
        raise ModelError(
            f"the weights in {where} lack lm_head.weight, and config.json does not tie the head "
            "to the embedding",
            "every weight: transformers would draw the head at random",
            'write "tie_word_embeddings": true into config.json if the embedding is the head',
        )
    raise ModelError(
        f"the weights in {where} {'lack' if missing else 'have unknown'} "
        f"{', '.join((missing or extra)[:3])}{more_than(len(missing or extra), 3)}",
        f"the {len(expected)} tensors that its configuration describes",
        config_fix(missing, extra, names)
        or "check that all shards are there and that the configuration is theirs",
    )


def more_than(count: int, shown: int) -> str:
    return f" and {count - shown} more" if count > shown else ""


def config_fix(missing: Collection[str], extra: Collection[str], names: Collection[str]) -> str:
    """What to write into config.json where whole layers or biases are all that is wrong."""
    wrong = missing or extra
    if all(name.endswith("_proj.bias") for name in wrong):
        return "check attention_bias and mlp_bias in config.json"
    numbers = [layer_of(name) for name in wrong]
    layers = {number for number in map(layer_of, names) if number is not None}
    if not layers or None in numbers:
        return ""
    if missing and min(n for n in numbers if n is not None) <= max(layers):
        return ""
    return f"write num_hidden_layers {max(layers) + 1} into config.json, if the file is whole"


def layer_of(name: str) -> int | None:
    """3 for model.layers.3. ...; None for a tensor of no layer."""
    parts = name.split(".", 3)
    inside = parts[:2] == ["model", "layers"] and len(parts) > 3 and parts[2].isdecimal()
    return int(parts[2]) if inside else None
