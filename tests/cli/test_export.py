"""`aha export` from the command line."""

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
