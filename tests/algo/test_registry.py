"""The form of registry: what is passed to an algorithm, what it reads, and what a name may be."""

import subprocess
import sys

import pytest
import torch

from aha.algo.advantages import ADVANTAGES
from aha.algo.algorithms import REGISTRIES, chosen_of, method_of
from aha.algo.correction import CORRECTIONS
from aha.algo.filters import CURRICULA
from aha.algo.losses import LOSSES, LossFacts
from aha.algo.registry import Registry, load_outside
from aha.core.config import AlgoSection, RunConfig
from aha.core.errors import ConfigError


def test_anyone_can_register_an_algorithm_and_a_name_is_given_once():
    registry = Registry("loss", LossFacts)

    @registry("mine")
    def mine(logprobs_BT, old_logprobs_BT, advantages_BT, strength=2.0):
        return -strength * advantages_BT * logprobs_BT

    one = torch.ones(1, 1)
    # It names `strength` and no mask: the mask is not passed, and None leaves its own default.
    assert registry["mine"](one, one, one, mask_BT=one, strength=None).item() == -2.0
    assert registry["mine"](one, one, one, mask_BT=one, strength=3.0).item() == -3.0
    with pytest.raises(AssertionError, match="registered already"):
        registry("mine")


def test_a_fact_that_nobody_knows_is_refused():
    with pytest.raises(TypeError, match="every_raw"):
        LOSSES("mine", every_raw=True)
    assert "mine" not in LOSSES


def test_what_an_algorithm_reads_follows_from_its_signature():
    reads = {name: list(loss.reads) for name, loss in LOSSES.items()}
    assert reads["pg"] == [] and reads["quadratic"] == ["tau"]
    assert reads["ppo_clip"] == ["clip_low", "clip_high", "dual_clip"]
    assert LOSSES.readers("tau") == ["quadratic"]
    algo = AlgoSection(correction_low=0.5)
    assert CORRECTIONS["icepop"].settings(algo) == {"low": 0.5, "high": None}


def test_an_unknown_name_is_refused_with_the_nearest():
    assert LOSSES.pick("gspo").name == "gspo"
    with pytest.raises(ConfigError, match=r"algo.loss = 'ppo_clp'.*one of pg.*'ppo_clip'"):
        LOSSES.pick("ppo_clp")
    with pytest.raises(ConfigError, match="one of pg") as caught:
        LOSSES.pick("0")
    assert not caught.value.fix
    with pytest.raises(AssertionError, match="no loss '0'"):
        LOSSES["0"]


def test_a_name_of_an_earlier_version_leads_to_those_that_took_its_place():
    with pytest.raises(ConfigError, match="did you mean 'lite_ppo' or 'scale_rl'"):
        ADVANTAGES.pick("batch_std")
    assert all(name in ADVANTAGES for names in ADVANTAGES.former.values() for name in names)


def test_a_setting_comes_to_the_algorithms_default_where_the_recipe_leaves_it_out():
    pass_at_k = ADVANTAGES["pass_at_k"]
    assert pass_at_k.value_of("pass_k", AlgoSection()) == 4
    assert pass_at_k.value_of("pass_k", AlgoSection(pass_k=2)) == 2


def test_a_registry_may_have_a_name_for_none():
    assert CORRECTIONS.chosen("none") is None and CORRECTIONS.choices[0] == "none"
    for registry, word in ((CORRECTIONS, "off"), (CURRICULA, "none")):
        with pytest.raises(ConfigError, match=f"did you mean '{registry.absent}'"):
            registry.chosen(word)
    assert CORRECTIONS.chosen("icepop") is CORRECTIONS["icepop"]
    assert chosen_of(AlgoSection()).correction is None


@pytest.mark.parametrize("setting", REGISTRIES)
def test_the_default_of_each_key_is_a_choice(setting):
    default = AlgoSection.model_fields[setting].default
    assert default in [*REGISTRIES[setting].choices, None]


def test_the_estimator_of_the_kl_follows_from_its_place():
    names = [chosen_of(AlgoSection(kl=kl)).kl_estimator for kl in ("none", "reward", "loss")]
    assert [name and name.name for name in names] == [None, "k1", "k3+"]


def method(**algo):
    return method_of(RunConfig(algo=AlgoSection(**algo)))


def test_the_method_of_a_recipe():
    plain = method()
    assert plain.flat_is_zero and not (plain.critic or plain.reference)
    assert not plain.computes_every_row(0, 0.0) and plain.computes_every_row(0, 0.001)
    held = method(entropy_control="kl_cov", updates=8, loss="ratio")
    assert [held.computes_every_row(update, 0.0) for update in (0, 1, 7)] == [False, True, True]
    assert method(loss="quadratic").every_row and method(kl="loss").every_row
    ppo = method(advantage="gae", kl="reward")
    assert ppo.critic and ppo.reference and ppo.computes_every_row(0, 0.0)
    # The KL in the reward makes the rewards of a group differ, whatever its grades.
    assert not ppo.flat_is_zero and not method(kl="reward").flat_is_zero
    resampled = method(zero_variance="resample")
    assert resampled.resamples and resampled.drops_flat


def test_names_and_facts_are_known_without_torch():
    code = (
        "import sys; from aha.algo.recipe import load_recipe; from aha.algo.algorithms import "
        "method_of; method_of(load_recipe(None)); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def installed(folder, monkeypatch, code: str) -> None:
    """A package `theirs` on the path, with the entry point that its module is named under."""
    (folder / "theirs.py").write_text(code)
    info = folder / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[aha.algorithms]\ntheirs = theirs\n")
    monkeypatch.syspath_prepend(folder)


def test_an_installed_package_registers_its_own(tmp_path, monkeypatch):
    code = (
        "from aha.algo.losses import loss\n"
        "@loss('theirs')\n"
        "def theirs(logprobs_BT, old_logprobs_BT, advantages_BT):\n"
        "    return -2 * advantages_BT * logprobs_BT\n"
    )
    installed(tmp_path, monkeypatch, code)
    load_outside()
    try:
        assert LOSSES.pop("theirs")(1.0, 0.0, 3.0) == -6.0
    finally:
        sys.modules.pop("theirs", None)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import a_module_that_nobody_has", "ModuleNotFoundError: No module named"),
        ("from aha.algo.losses import loss\nloss('pg')", "'pg' is registered already"),
    ],
)
def test_a_package_that_cannot_register_is_named(tmp_path, monkeypatch, code, reason):
    installed(tmp_path, monkeypatch, code)
    with pytest.raises(ConfigError, match=reason) as caught:
        load_outside()
    assert "installed package 'theirs'" in str(caught.value) and "pip" in caught.value.fix


def test_a_parameter_that_nothing_fills_is_refused_when_it_is_registered():
    """In a run it would fail in the first step, after the run folder exists."""
    with pytest.raises(ConfigError, match="parameter 'mask'.*mask_BT.*rename 'mask'"):

        @LOSSES("misspelt")
        def misspelt(logprobs_BT, old_logprobs_BT, advantages_BT, *, mask): ...

    assert "misspelt" not in LOSSES
