"""Any config.json: a model or a `ModelError`, and nothing else; nothing hangs, nothing huge is
allocated. A few hundred tries here, a hundred thousand on demand."""

import json
import resource
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aha.core.errors import ModelError
from aha.model import weights
from aha.model.architecture import FAMILIES, ModelConfig, tensor_shapes
from aha.model.config_keys import NO_LOGITS, READ, UnsupportedModel, unknown_keys
from aha.model.rope_scaling import rope_of
from aha.model.weights import read_policy

from ..fuzz import tries
from ..tiny import tiny_folder

ROPE_KINDS = ("default", "linear", "yarn", "llama3", "dynamic", "longrope", "mrope", "")
numbers = st.one_of(
    st.integers(-2, 300),
    st.sampled_from([0, 1, 2**31, 2**31 + 1, 2**63, 10**40, -1, 10**400]),
    st.floats(),
)
scalars = st.one_of(st.none(), st.booleans(), numbers, st.text(max_size=8))
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
rope_objects = st.fixed_dictionaries(
    {},
    optional={
        "rope_type": st.one_of(st.sampled_from(ROPE_KINDS), values),
        "type": st.sampled_from(ROPE_KINDS),
        **{
            key: st.one_of(numbers, values)
            for key in (
                *("factor", "rope_theta", "low_freq_factor", "high_freq_factor", "beta_fast"),
                *("beta_slow", "attention_factor", "mscale", "mscale_all_dim", "truncate"),
                *("original_max_position_embeddings", "partial_rotary_factor", "full_attention"),
            )
        },
    },
)
keys = st.sampled_from(sorted(READ | NO_LOGITS | {"logit_scale", "text_config"}))
layers = st.lists(st.sampled_from(["full_attention", "sliding_attention", "x"]), max_size=3)
changes = st.one_of(
    st.dictionaries(keys, st.one_of(numbers, values), max_size=4),
    st.fixed_dictionaries({"rope_scaling": rope_objects}),
    st.fixed_dictionaries({"rope_parameters": rope_objects, "layer_types": layers}),
    st.dictionaries(st.text(max_size=12), values, max_size=4),
)
contents = st.tuples(st.sampled_from(sorted(FAMILIES)), st.sets(keys, max_size=2), changes)


def content_of(drawn, base: dict) -> dict:
    family, left_out, change = drawn
    kept = {key: value for key, value in base.items() if key not in left_out}
    return {**kept, "model_type": family, **change}


class Tried:
    """What came out of each try."""

    def __init__(self) -> None:
        self.results: Counter[str] = Counter()
        self.slowest = 0.0

    def read(self, function, *given: object) -> None:
        """One try: a value or a `ModelError`. Any other exception ends the test."""
        began = time.process_time()
        try:
            function(*given)
            self.results["read"] += 1
        except ModelError as error:
            self.results[type(error).__name__] += 1
            assert "\n" not in str(error) and len(str(error)) < 2000
        self.slowest = max(self.slowest, time.process_time() - began)


def read_content(content: dict) -> None:
    config = ModelConfig.from_hf(content)
    unknown_keys(content, rope_of(content))
    if config.num_hidden_layers < 100:
        tensor_shapes(config)


def leave_to_transformers(folder: Path, raw: dict, reason: UnsupportedModel) -> None:
    raise reason


@pytest.fixture
def bounded():
    """No more memory than is there, and one GB."""
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + 2**30, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, limits)


def try_contents(folder: Path, count: int, monkeypatch) -> Tried:
    """Contents of config.json by the reader alone, a fifth as many as files beside real weights,
    and a fifth as many files of any bytes."""
    monkeypatch.setattr(weights, "load_hf", leave_to_transformers)
    path, tried = folder / "config.json", Tried()
    base = json.loads(path.read_text())
    health = list(HealthCheck)

    @settings(max_examples=count, suppress_health_check=health, database=None)
    @given(contents)
    def one_content(drawn) -> None:
        tried.read(read_content, content_of(drawn, base))

    @settings(max_examples=count // 5, suppress_health_check=health, database=None)
    @given(contents)
    def one_file(drawn) -> None:
        path.write_text(json.dumps(content_of(drawn, base)))
        tried.read(read_policy, folder)

    @settings(max_examples=count // 5, suppress_health_check=health, database=None)
    @given(st.one_of(st.binary(max_size=60), st.integers(1, 10**6).map(lambda n: b"[" * n)))
    def some_bytes(data) -> None:
        path.write_bytes(data)
        tried.read(read_policy, folder)

    for each in (one_content, one_file, some_bytes):
        each()
    assert tried.slowest < 5.0, "a try that hangs"
    return tried


def test_any_config_is_a_model_or_one_line(tmp_path, monkeypatch, bounded):
    tried = try_contents(tiny_folder(tmp_path), 120, monkeypatch)
    assert tried.results["read"] > 5 and tried.results["ModelError"] > 30


@pytest.mark.fuzz
@pytest.mark.timeout(3600)
def test_a_hundred_thousand_configs_are_models_or_one_line(tmp_path, monkeypatch, bounded):
    tried = try_contents(tiny_folder(tmp_path), tries(75_000), monkeypatch)
    print(f"{sum(tried.results.values())} tries: {dict(tried.results)}, {tried.slowest:.2f} s")
    assert sum(tried.results.values()) >= tries(100_000)


def read_all(folder: Path) -> None:
    read_policy(folder)


@pytest.mark.fuzz
@pytest.mark.timeout(3600)
def test_configs_that_transformers_reads_are_models_or_one_line(tmp_path, bounded):
    """The same with the models that our decoder leaves to `transformers`: slower, so fewer."""
    folder, tried = tiny_folder(tmp_path), Tried()
    path = folder / "config.json"
    base = json.loads(path.read_text())
    ours = {"hidden_act": "gelu"}  # never by our decoder

    @settings(max_examples=tries(1_500), suppress_health_check=list(HealthCheck), database=None)
    @given(contents)
    def one_file(drawn) -> None:
        path.write_text(json.dumps(ours | content_of(drawn, base) | ours))
        tried.read(read_all, folder)

    one_file()
    print(f"{dict(tried.results)}, {tried.slowest:.2f} s")
    assert tried.slowest < 30.0
