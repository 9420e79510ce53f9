"""The three loggers with the real packages, without a network; skipped where one is missing."""

import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from aha.loggers.run_loggers import RunLoggers
from aha.loggers.tensorboard_logger import as_text
from aha.store.run_folder import Run, read_rows

from .runs import BEFORE, cut_back, new_run, write_step, write_validation


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch) -> None:
    """Nothing of the user's: neither a login nor a folder."""
    for name in [name for name in os.environ if name.startswith(("WANDB_", "TRACKIO_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR", "TRACKIO_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.chdir(tmp_path)


def log(run: Run, name: str, steps: range) -> list:
    """Steps of a run with one logger, as a process that trains; what was said and found."""
    messages: list = []
    loggers = RunLoggers(run, [name], lambda *finding: messages.append(finding), messages.append)
    for step in steps:
        write_step(run, step)
        loggers.follow()
    loggers.end()
    return messages


def begun(tmp_path: Path) -> Run:
    run = new_run(tmp_path / "runs" / "first")
    run.write("before.json", BEFORE)
    return run


# -- TensorBoard -----------------------------------------------------------------------------


def test_tensorboard_reads_what_the_run_has_and_drops_what_a_resume_repeats(tmp_path):
    pytest.importorskip("tensorboard", reason="pip install 'aha[tensorboard]'")
    from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    run = begun(tmp_path)
    (said,) = log(run, "tensorboard", range(1, 4))
    assert said == f"tensorboard: tensorboard --logdir {run.path.parent}"
    cut_back(run, 1)
    log(run, "tensorboard", range(2, 5))
    run.refuse_links_out()

    # What TensorBoard itself reads with: every value is a tensor there.
    events = EventAccumulator(str(run.path / "tensorboard"), {"tensors": 0})
    events.Reload()
    for name in ("reward", "train/reward"):
        points = [(event.step, make_ndarray(event.tensor_proto)) for event in events.Tensors(name)]
        assert points == [(step, pytest.approx(step / 10)) for step in (1, 2, 3, 4)]
    assert make_ndarray(events.Tensors("test/before/solve_rate")[0].tensor_proto) == 0.25
    bins = make_ndarray(events.Tensors("completion_tokens")[0].tensor_proto)
    assert bins[:, 2].sum() == 6 and bins[-1, 1] == 25  # columns: from, to, count
    texts = events.Tensors("completions/text_summary")
    assert [event.step for event in texts] == [1, 2, 3, 4]
    assert "    two ``` <b>" in texts[0].tensor_proto.string_val[0].decode()
    config = events.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "    optim.lr = 0.001" in config
    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert b"optim.lr" in content


def test_texts_for_tensorboard_keep_every_line():
    row = [1, 0, "1 + 1 ->", "two\n---\n# no heading", 1.0, 0.5, True, 5, "because"]
    lines = as_text([row]).splitlines()
    assert "    1 + 1 ->two" in lines and "    ---" in lines and "    # no heading" in lines


# -- wandb -----------------------------------------------------------------------------------


@pytest.fixture
def wandb():
    """The package; afterwards the next test reads its environment anew."""
    package = pytest.importorskip("wandb", reason="pip install 'aha[wandb]'")
    yield package
    package.teardown()


def wandb_records(folder: Path) -> tuple[dict, dict, list[dict]]:
    """(config, summary, history) of the offline runs in a folder, oldest first."""
    from wandb.proto import wandb_internal_pb2

    config, summary, history = {}, {}, []
    for path in sorted(folder.glob("offline-run-*/*.wandb")):
        for data in framed(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            if pairs := items_of(record.history.item):
                history.append(pairs)
            config |= items_of(record.run.config.update) | items_of(record.config.update)
            summary |= items_of(record.summary.update)
    return config, summary, history


def framed(content: bytes) -> Iterator[bytes]:
    """The records of a file in the log format of LevelDB: blocks of 32 KB, in them parts with a
    checksum, a length and a kind (1 whole, 2 first, 3 middle, 4 last), behind a header of 7."""
    place, data = 7, b""
    while place + 7 <= len(content):
        if 32_768 - place % 32_768 < 7:
            place += 32_768 - place % 32_768
            continue
        size, kind = struct.unpack_from("<HB", content, place + 4)
        data += content[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):
            yield data
            data = b""


def items_of(items) -> dict:
    pairs = [("/".join(item.nested_key) or item.key, item.value_json) for item in items]
    return {name: json.loads(text) for name, text in pairs}


def test_wandb_without_a_login_is_offline_and_a_resumed_run_keeps_its_id(tmp_path, wandb):
    run = begun(tmp_path)
    (said,) = log(run, "wandb", range(1, 4))
    assert said.startswith("wandb: no login (`wandb login`): offline mode; ")
    assert Path(said.rpartition("wandb sync ")[2]).is_dir()
    cut_back(run, 1)
    write_validation(run, 1)
    log(run, "wandb", range(2, 5))
    run.refuse_links_out()
    wandb.teardown()  # its own process writes the last records when it ends

    folders = sorted((tmp_path / "wandb").glob("offline-run-*"))
    run_id = run.read("loggers.json")["wandb"]["id"]
    assert len(folders) == 2 and all(path.name.endswith(run_id) for path in folders)
    config, summary, history = wandb_records(tmp_path / "wandb")
    assert config["optim"] == {"lr": 1e-3} and config["seed"] == 3
    steps = [row for row in history if "reward" in row]
    assert [row["_step"] for row in steps] == [1, 2, 3, 4]
    assert [row["reward"] for row in steps] == [row["train/reward"] for row in steps]
    # A validation that a resume made up comes late, with the step that it is of.
    (late,) = [row for row in history if "validation/solve_rate" in row]
    assert late["validation/step"] == 1 and late["_step"] == 3
    assert steps[3]["reward"] == 0.4 and summary["test/before/solve_rate"] == 0.25
    assert steps[0]["completion_rewards/_type"] == "histogram"
    assert sum(steps[0]["completion_rewards/values"]) == 6
    tables = [json.loads(path.read_text()) for path in (tmp_path / "wandb").rglob("*.table.json")]
    assert len(tables) == 4
    assert tables[0]["columns"][2:4] == ["prompt", "completion"]
    assert tables[0]["data"][0][3] == "one\ntwo ``` <b>"


def test_wandb_without_a_network_is_offline_with_the_reason(tmp_path, monkeypatch, wandb):
    from aha.loggers import wandb_logger

    monkeypatch.setattr(wandb_logger, "INIT_TIMEOUT_S", 3.0)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody listens there
    (said,) = log(begun(tmp_path), "wandb", range(1, 3))
    assert said.startswith("wandb: no connection (") and "offline mode" in said
    wandb.teardown()
    _, _, history = wandb_records(tmp_path / "wandb")
    assert [row["_step"] for row in history] == [1, 2]


# -- trackio ---------------------------------------------------------------------------------


def test_trackio_has_every_step_once_over_a_resume(tmp_path, capfd):
    pytest.importorskip("trackio", reason="pip install 'aha[trackio]'")
    from trackio.sqlite_storage import SQLiteStorage

    run = begun(tmp_path)
    (said,) = log(run, "trackio", range(1, 4))
    cut_back(run, 1)
    log(run, "trackio", range(2, 5))
    assert capfd.readouterr().out == ""
    run_id = run.read("loggers.json")["trackio"]["id"]
    assert said == f"trackio: first-{run_id}; to see it: trackio show --project aha"
    rows = SQLiteStorage.get_logs("aha", f"first-{run_id}")
    steps = [row for row in rows if "reward" in row]
    assert [row["step"] for row in steps] == [1, 2, 3, 4]
    assert [row["reward"] for row in steps] == [row["train/reward"] for row in steps]
    assert steps[0]["completion_rewards"]["_type"] == "trackio.histogram"
    assert len(list(read_rows(run.metrics))) == 4
