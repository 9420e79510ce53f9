"""The reward file of an export to veRL: our own grader in one file that needs no other package."""

import aha
from aha.core.config import TaskSection
from aha.export.own_source import standing_alone

SCORE = "aha.export.verl_score"
GRADERS = {"countdown": "countdown_row", "multiply": "multiply_row", "math": "math_row"}

HEAD = '''"""The reward of the task {task!r} for veRL, as Aha {version} grades it.

Made by `aha export`; every definition is a copy of Aha's own source (Apache-2.0), so change it
there. Needs Python 3.10 and no other package. veRL calls `compute_score` with the completion alone,
special tokens stripped.
"""

'''
TAIL = '''

# -- the entry point of veRL -------------------------------------------------------------------


SETTINGS: Settings = {settings!r}


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **kwargs):
    """The reward of one completion: {{"score": ..., "acc": ..., "reason": ...}}.

    What a reward manager passes besides (`kwargs`) does not change it.
    """
    return row_score({grader}, SETTINGS, solution_str, ground_truth, extra_info)
'''


def reward_file(task: TaskSection) -> str:
    """The source of the file for a packaged task with the settings that its grades depend on."""
    grader = GRADERS[task.name]
    settings = {
        "verifier": task.verifier,
        "template": task.template,
        "format_reward": task.format_reward,
    }
    body = standing_alone([(SCORE, "row_score"), (SCORE, grader)])
    head = HEAD.format(task=task.name, version=aha.__version__)
    return head + body + TAIL.format(settings=settings, grader=grader)
