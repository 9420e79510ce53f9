"""How many completions of the base there is time for, and how long they are."""

import pytest

from aha.core.config import RunConfig
from aha.core.seeds import seed_for
from aha.eval.suite import held_out
from aha.measure.base_length import completions_in, measure_base_length
from aha.model.weights import load_model
from aha.plan.calibration import BaseLength
from aha.training.builders import task_of

from ..tiny import tiny_folder


@pytest.mark.parametrize(("seconds", "count"), [(100, 64), (6.4, 64), (6.3, 32), (1.6, 16), (1, 0)])
def test_as_many_as_there_is_time_for_and_no_fewer_than_tell_something(seconds, count):
    assert completions_in(seconds, lambda n: 0.1 * n) == count


def test_the_mean_is_that_of_what_it_writes(tmp_path):
    """Greedy by hand, where nothing is drawn: the first problems of the training split."""
    folder = tiny_folder(tmp_path / "base")
    raw = {"model": {"path": str(folder)}, "rollout": {"max_new_tokens": 12}}
    cfg = RunConfig.model_validate(raw)
    found = measure_base_length(cfg, folder, 16)
    assert found.completions == 16 and 1 <= found.tokens <= 12
    assert found == measure_base_length(cfg, folder, 16) and found.asked == BaseLength.question(cfg)
    model = load_model(folder)
    seed = seed_for(0, "base length")
    assert len(held_out(task_of(cfg), model.tokenizer, "train", 16, seed)) == 16
