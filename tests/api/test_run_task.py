"""The task of a call: the named one, or that of the run."""

import json

import pytest

from aha.api.run_task import choose_task
from aha.core.errors import RunError
from aha.store.run_folder import Run

SETTINGS = {"task": {"name": "multiply", "options": {"digits": [3]}}}


def test_a_run_whose_settings_cannot_be_read_can_be_asked_a_named_task(tmp_path):
    """As the error says. Anything else would need the run's own task."""
    run = Run.create(tmp_path / "run", SETTINGS)
    assert choose_task(str(run.path), None, {}).name == "multiply"
    (run.path / "config.json").write_text(json.dumps({"algo": {"loss": "gone"}}))
    with pytest.raises(RunError) as error:
        choose_task(str(run.path), None, {})
    assert error.value.fix.startswith("--task countdown")
    chosen = choose_task(str(run.path), "countdown", {"numbers": [4]})
    assert (chosen.name, chosen.settings["numbers"]) == ("countdown", [4])
