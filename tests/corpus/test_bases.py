"""The named bases."""

from dataclasses import fields

from aha.corpus.bases import BASES, PretrainConfig, command_for
from aha.model.tokenizer import build_tokenizer


def test_a_base_has_the_tokenizers_vocabulary():
    assert {base.shape.V for base in BASES.values()} == {build_tokenizer().vocab_size}


def test_the_tiny_one_is_made_as_aha_tiny_was():
    assert BASES["tiny"].cfg == PretrainConfig() and BASES["tiny"].model == "aha-tiny"


def test_ten_million_parameters_differ_from_it_where_the_size_asks_for_it():
    cfg, tiny = BASES["10m"].cfg, PretrainConfig()
    changed = {f.name for f in fields(cfg) if getattr(cfg, f.name) != getattr(tiny, f.name)}
    assert changed == {"tokens", "batch_tokens", "warmup_steps", "mix"}
    assert 9.5e6 < BASES["10m"].shape.parameters < 10.5e6


def test_a_finished_base_is_known_by_its_path_and_nothing_else_is():
    for name, base in BASES.items():
        assert command_for(str(base.model_folder)) == f"aha pretrain --shape {name}"
        assert command_for(base.folder) is None  # which holds an unfinished one too
    assert command_for("aha-tiny") is None
