"""`aha export` from the command line."""

import pytest

from aha.model.weights import load_model


def test_export_writes_a_folder_and_says_where(aha, model, tmp_path):
    done = aha("export", model, "--out", "given")
    assert done.code == 0 and "given" in done.out
    assert (tmp_path / "given" / "README.md").is_file()
    assert load_model(tmp_path / "given").policy.num_parameters() > 0


def test_export_to_a_taken_place_is_one_line(aha, model, tmp_path):
    (tmp_path / "given").mkdir()
    done = aha("export", model, "--out", "given")
    assert done.code == 2 and "exists already" in done.err and done.err.count("\n") == 1


def test_export_of_an_unknown_form_is_one_line(aha, model):
    done = aha("export", model, "--out", "given", "--form", "pickle")
    assert done.code == 2 and "pickle" in done.err and "Traceback" not in done.err


def test_a_dry_run_of_a_push_says_what_would_go_where(aha, model, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    words = ("export", model, "--out", "given", "--push", "me/mine")
    done = aha(*words, "--private", "--dry-run")
    assert done.code == 0 and "uploaded to http://127.0.0.1:9/me/mine, private:" in done.out
    size = (tmp_path / "given" / "model.safetensors").stat().st_size
    assert f"{size:,} bytes  model.safetensors" in done.out and "README.md" in done.out
    card = (tmp_path / "given" / "README.md").read_text()
    assert "name = 'me/mine'" in card


def test_a_push_that_cannot_be_is_refused_before_anything_is_written(aha, model, tmp_path):
    done = aha("export", model, "--out", "given", "--push", "mine")
    assert done.code == 2 and "OWNER/NAME" in done.err and not (tmp_path / "given").exists()
    done = aha("export", model, "--out", "given", "--dry-run")
    assert done.code == 2 and "--dry-run without --push" in done.err
    # Without a network the folder is there all the same.
    done = aha("export", model, "--out", "given", "--push", "me/mine")
    assert done.code == 2 and "hf upload me/mine given" in done.err
    assert (tmp_path / "given" / "README.md").is_file()


SMALL = "--steps 1 --rollout.prompts 8 --eval.problems 2 --eval.final 2".split()


def test_a_recipe_for_verl_is_written_and_its_command_printed(aha, tmp_path):
    done = aha("export", "tinyzero-0.5b", "--form", "verl", "--out", "given", *SMALL)
    assert done.code == 0, done.err
    assert "TinyZero's own settings" in done.out and "--optim.beta2 0.999" in done.out
    assert "--steps" not in done.out.splitlines()[0], "the caller has set them"
    assert "bash given/train.sh" in done.out and "On 2 GPUs" in done.out
    text = (tmp_path / "given" / "overrides.txt").read_text()
    assert "trainer.n_gpus_per_node=2\n" in text and "optim.betas=[0.9,0.999]\n" in text


def test_a_recipe_that_verl_cannot_express_is_one_line_whose_fix_works(aha, tmp_path):
    words = ("export", "grpo", "--form", "verl", "--out", "given", *SMALL[:2], *SMALL[4:])
    done = aha(*words)
    assert done.code == 2 and done.err.count("\n") == 1 and not (tmp_path / "given").exists()
    assert "algo.reference_reset 25" in done.err and "optim.final_lr 0.1" in done.err
    fix = done.err.partition("fix: ")[2].split()
    # Once more: the packaged model's tags are special tokens, which are looked at after the keys.
    done = aha(*words, *fix)
    assert done.code == 2 and "special tokens" in done.err
    fix += done.err.partition("fix: ")[2].split()
    done = aha(*words, *fix, "--gpus", "4")
    assert done.code == 0, done.err
    assert "trainer.n_gpus_per_node=4\n" in (tmp_path / "given" / "overrides.txt").read_text()


def test_settings_of_a_recipe_are_refused_beside_another_form(aha, model):
    for words in (["--optim.lr", "1e-4"], ["--gpus", "2"], ["--nodes", "2"]):
        done = aha("export", model, "--out", "given", *words)
        assert done.code == 2 and "--form verl" in done.err and words[0].strip("-") in done.err


@pytest.mark.parametrize("form", ["adapter", "verl"])
def test_a_type_of_numbers_that_would_be_dropped_is_an_error(aha, form, tmp_path):
    done = aha("export", "demo", "--form", form, "--out", "given", "--dtype", "bfloat16")
    assert done.code == 2 and f"--dtype bfloat16 with --form {form}" in done.err
    assert not (tmp_path / "given").exists()


def test_a_recipe_for_verl_is_not_pushed(aha, tmp_path):
    done = aha("export", "demo", "--form", "verl", "--out", "given", "--push", "me/mine")
    assert done.code == 2 and "--push with --form verl" in done.err
    assert not (tmp_path / "given").exists()


def test_an_unknown_recipe_for_verl_is_one_line(aha):
    done = aha("export", "tinyzero-30b", "--form", "verl", "--out", "given")
    assert done.code == 2 and "did you mean" in done.err and "Traceback" not in done.err
