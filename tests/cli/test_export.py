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
