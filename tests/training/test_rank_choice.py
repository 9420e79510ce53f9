"""The number of ranks that a run takes by itself."""

import pytest
import torch

from aha.core.config import RunConfig
from aha.core.sizes import RANK_GROUPS
from aha.dist.local_ranks import can_meet
from aha.machine.host import usable_cores
from aha.training.rank_choice import gpus_of_workers, ranks_for

pytestmark = pytest.mark.skipif(not can_meet(), reason="this torch has no gloo")


@pytest.fixture
def threads():
    """torch computes with two threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield min(2, usable_cores())
    torch.set_num_threads(before)


def config(model: str = "aha-tiny", prompts: int = 32, engine: str = "native") -> RunConfig:
    rollout = {"prompts": prompts, "engine": engine}
    return RunConfig.model_validate({"model": {"path": model}, "rollout": rollout})


def test_a_small_model_has_a_rank_for_each_thread(threads, tmp_path):
    assert ranks_for(config()) == threads
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "aha-tiny"}')
    assert ranks_for(config(str(tmp_path))) == threads  # as its base
    assert ranks_for(config(prompts=2 * RANK_GROUPS - 1)) == 1
    assert ranks_for(config("Qwen/Qwen2.5-1.5B")) == 1  # on the hub: its shape is known
    torch.set_num_threads(1)
    assert ranks_for(config()) == 1


def test_what_is_not_known_or_cannot_be_shared_has_one(threads):
    assert ranks_for(config("nobody/knows-this")) == ranks_for(config("no-such-folder")) == 1
    assert ranks_for(config(engine="vllm")) == 1


@pytest.mark.parametrize(
    ("model", "device", "gpus"),
    [
        ("aha-tiny", "auto", "none"),  # small: a CPU is quicker
        ("aha-tiny", "cuda", "each"),
        ("Qwen/Qwen2.5-1.5B", "auto", "any"),
        ("nobody/knows-this", "auto", "any"),
        ("Qwen/Qwen2.5-1.5B", "cpu", "none"),
        ("Qwen/Qwen2.5-1.5B", "mps", "none"),
    ],
)
def test_workers_of_a_cluster_compute_where_a_run_here_would(model, device, gpus):
    assert gpus_of_workers(model, device) == gpus
