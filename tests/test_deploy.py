"""The templates of deploy/: rendered, and read by what reads such files."""

import os
import re
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
RENDER = runpy.run_path(str(DEPLOY / "render.py"))
VALUES = {
    "NAME": "first",
    "RECIPE": "demo",
    "NODES": "2",
    "RANKS": "4",
    "FOLDER": "/shared/aha",
    "TIME": "04:00:00",
    "HEAD": "10.0.0.1",
    "WORKER": "10.0.0.2",
    "USER": "ada",
    "IMAGE": "registry.example/aha:1",
    "CLAIM": "shared-disk",
    "BUCKET": "aha-runs",
}
GPUS = {"GPUS": "4", "GPU": "A100"}
# What every command for a launcher that repeats it has to say.
GOES_ON = "aha train demo --name first --resume auto"
ON_GPUS = "aha train demo --model.device cuda --name first --resume auto"


def rendered(name: str, **changes: str) -> str:
    """With the values that it needs, and those of GPUs where `changes` have them."""
    values = VALUES | changes
    needed = RENDER["fields"](name, changes)
    return RENDER["render"](name, {field: values[field] for field in needed})


def in_one_line(text: str) -> str:
    return " ".join(text.replace("\\\n", " ").split())


@pytest.mark.parametrize("gpus", [{}, GPUS])
@pytest.mark.parametrize("name", RENDER["templates"]())
def test_every_template_renders_and_says_what_ran(name, gpus):
    text = rendered(name, **gpus)
    assert not re.search(r"@[A-Z]+@|@(if|unless)", text) and " \n" not in text
    comment = " ".join(line.lstrip("# ") for line in text.splitlines() if line.startswith("#"))
    assert "Ran: " in comment and "Not run: " in comment


@pytest.mark.parametrize("gpus", [{}, GPUS])
@pytest.mark.parametrize("name", [n for n in RENDER["templates"]() if n.endswith(".sh")])
def test_bash_reads_every_script(name, gpus):
    text = rendered(name, **gpus)
    done = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("gpus", [{}, GPUS])
def test_the_commands_of_torchrun_are_those_of_torchrun(gpus):
    """Its own parser reads them, and finds the module and the words for it."""
    from torch.distributed.run import get_args_parser

    for name in ("slurm.sh", "torchrun-machines.sh", "skypilot.yaml"):
        text = in_one_line(rendered(name, **gpus))
        words = re.search(r"torchrun (.*--resume auto)", text)[1].split()
        words = [re.sub(r"\$\w+|\$\{.*?\}", "1", word.strip('"')) for word in words]
        options = get_args_parser().parse_args(words)
        assert options.module and options.training_script == "aha"
        goes_on = ON_GPUS if gpus else GOES_ON
        assert " ".join(options.training_script_args) == goes_on.removeprefix("aha ")
        assert (options.nproc_per_node, options.max_restarts) == ("4", 3)


STUBS = {
    "scontrol": '#!/bin/bash\n[ "$1" = show ] && echo node-a || echo "$@" >> "$LOG"\n',
    # Ends when it is asked to, as a run does: after a while, with 143.
    "srun": '#!/bin/bash\necho "$@" >> "$LOG"\n'
    "trap 'sleep .3; echo saved >> \"$LOG\"; exit 143' TERM\n"
    'echo ready; for i in $(seq 600); do [ -e "$END" ] && exit 0; sleep .05; done\n',
}


@pytest.mark.parametrize("stopped", [True, False])
def test_a_job_of_slurm_that_is_stopped_saves_and_queues_again(stopped, tmp_path):
    for name, text in STUBS.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    script, log = tmp_path / "job.sh", tmp_path / "log"
    script.write_text(rendered("slurm.sh", FOLDER=str(tmp_path)))
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "LOG": str(log), "END": str(tmp_path / "e")}
    env |= {"SLURM_JOB_ID": "7", "SLURM_NNODES": "2", "SLURM_JOB_NODELIST": "node-[a-b]"}
    job = subprocess.Popen(["bash", script], env=env, stdout=subprocess.PIPE, text=True)
    assert job.stdout.readline() == "ready\n"
    job.send_signal(signal.SIGTERM) if stopped else (tmp_path / "e").touch()
    code = job.wait(60)
    lines = log.read_text().splitlines()
    assert "--rdzv-endpoint node-a:29500 --rdzv-id 7-0" in lines[0] and GOES_ON in lines[0]
    assert lines[1:] == (["saved", "requeue 7"] if stopped else [])
    assert (code == 0) is not stopped


def test_a_job_of_slurm_asks_for_its_gpus():
    lines = rendered("slurm.sh", **GPUS).splitlines()
    assert "#SBATCH --gpus-per-node=4" in lines and "#SBATCH --cpus-per-task=4" in lines
    assert "gpu" not in rendered("slurm.sh").lower()


@pytest.mark.parametrize("gpus", [{}, {"GPUS": "1"}])
def test_the_job_of_kuberay_has_what_the_operator_reads(gpus):
    job = yaml.safe_load(rendered("kuberay-rayjob.yaml", **gpus))
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    words = f"{ON_GPUS if gpus else GOES_ON} --launcher ray --ranks 4"
    assert words in in_one_line(job["spec"]["entrypoint"])
    (group,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert group["replicas"] == group["minReplicas"] == group["maxReplicas"] == 4
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]
    for template in (head["template"], group["template"]):
        (pod,) = template["spec"]["containers"]
        mounted = {mount["name"] for mount in pod["volumeMounts"]}
        assert mounted == {volume["name"] for volume in template["spec"]["volumes"]}
        assert pod["resources"]["limits"].keys() == pod["resources"]["requests"].keys()
        on_gpu = bool(gpus) and template is group["template"]
        assert pod["resources"]["limits"].get("nvidia.com/gpu") == (1 if on_gpu else None)


def test_the_task_of_skypilot_keeps_its_runs_in_the_bucket():
    task = yaml.safe_load(rendered("skypilot.yaml"))
    assert task["resources"] == {"cpus": "4+", "use_spot": True}
    assert task["file_mounts"]["~/sky_workdir/runs"] == {"name": "aha-runs", "mode": "MOUNT_CACHED"}
    assert GOES_ON in in_one_line(task["run"]) and "whl/cpu" in task["setup"]
    task = yaml.safe_load(rendered("skypilot.yaml", **GPUS))
    assert task["resources"]["accelerators"] == "A100:4" and "whl/cpu" not in task["setup"]
    assert ON_GPUS in in_one_line(task["run"]) and "pip install ." in task["setup"]


def test_the_cluster_of_ray_has_its_machines():
    cluster = yaml.safe_load(rendered("ray-cluster.yaml"))
    assert cluster["provider"]["worker_ips"] == ["10.0.0.2"]
    try:
        from ray.autoscaler._private.util import validate_config
    except ImportError:
        pytest.skip("Ray is not installed: pip install '.[ray]'")
    validate_config(cluster)


def test_wrong_values_are_refused_with_those_that_are_needed():
    def words(*arguments: str) -> str:
        command = [sys.executable, str(DEPLOY / "render.py"), *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (2, "")
        return done.stderr

    assert "no template; wanted one of kuberay-rayjob.yaml" in words()
    assert "no template 'render.py'" in words("render.py")
    assert "no BUCKET, no NAME, no RANKS" in words("skypilot.yaml", "RECIPE=demo")
    assert "no GPU" in words("skypilot.yaml", "GPUS=2")
    assert "GPU, which it does not have" in words("skypilot.yaml", "GPU=A100")
    assert "and may have GPUS" in words("skypilot.yaml")
    assert "HEAD, which it does not have" in words("skypilot.yaml", "HEAD=a")
    assert "wanted FIELD=VALUE" in words("slurm.sh", "NAME")
    with pytest.raises(ValueError, match="wanted letters"):
        rendered("slurm.sh", NAME="a; rm -rf b")


def test_scale_md_names_every_template():
    page = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    assert [name for name in RENDER["templates"]() if f"deploy/{name}" not in page] == []
