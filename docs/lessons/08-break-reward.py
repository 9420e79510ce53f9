# %% [markdown]
# # Break it: a reward that can be cheated
#
# An exercise: the training is broken on purpose. Look at the curve, say what went wrong, and only
# then ask the doctor. A script (`python docs/lessons/08-break-reward.py --quick`) or a notebook.

# %%
import sys
from itertools import islice

import aha
from aha.doctor.run_checks import diagnose
from aha.tasks.countdown import Countdown, grade_countdown

QUICK = "--quick" in sys.argv  # in a notebook: set it by hand
STEPS, PROMPTS = (20, 8) if QUICK else (60, 32)

# %% [markdown]
# ## 1. The puzzles
#
# Countdown with three numbers as rows of data, and its exact verifier as a reward function.

# %%
task = Countdown()
rows = [
    {"prompt": task.ask(problem), **problem.given}
    for problem in islice(task.problems("train", 0), 1_000)
]


def right(completion, numbers, target):
    return float(grade_countdown(completion, tuple(numbers), target).correct)


# %% [markdown]
# ## 2. What is broken
#
# A second reward pays for a tidy completion, in which nothing stands before the answer that does
# not belong there. What is the cheapest way to be tidy?


# %%
def tidy(completion):
    return float(completion.startswith("</think>\n<answer>"))


run = aha.train(
    "demo",
    reward=[right, tidy],
    reward_weights=[0.2, 1.0],
    data=rows,
    steps=STEPS,
    rollout={"prompts": PROMPTS, "max_new_tokens": 128},
    optim={"lr": 1e-3},
)

# %% [markdown]
# ## 3. The curve
#
# The reward rises. Does the share of solved puzzles? Which column would you show to a friend?

# %%
for row in run.rows:
    print(
        f"step {row['step']:>2}: reward {row['reward']:.2f}, solved {row['solve_rate']:.0%}, "
        f"{row['mean_tokens']:.0f} tokens, entropy {row['entropy']:.3f}"
    )
run

# %% [markdown]
# ## 4. What does the doctor say?
#
# `aha doctor RUN` prints the same.

# %%
findings = {finding.check: finding for finding in diagnose(run.path)}
for finding in findings.values():
    if finding.level != "ok":
        print(f"{finding.level} {finding.check}: {finding.message}; fix: {finding.fix}")
NAMED_BY = "format_only"
assert findings[NAMED_BY].level != "ok", findings[NAMED_BY].message

# %% [markdown]
# ## 5. Why, and how to mend it
#
# Not to think at all is the tidiest thought, and far cheaper than to solve a puzzle: the policy
# learns it first. Whatever a reward pays for beside the right answer may be had without it.
#
# Mend it: pay for right answers alone. The reward of a task in a file is audited before a run:
# `aha doctor demo --task FILE` tries dozens of cheats on it.
