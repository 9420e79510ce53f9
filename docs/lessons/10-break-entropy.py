# %% [markdown]
# # Break it: collapsed entropy
#
# An exercise: the training is broken on purpose. Look at the curve, say what went wrong, and only
# then ask the doctor. A script (`python docs/lessons/10-break-entropy.py --quick`) or a notebook.

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
# A second reward pays for one answer: the sum of all numbers, in their order. It is hardly ever
# right, and the learning rate is more than twice that of the demo.


# %%
def adds_up(completion, numbers):
    return float(f"<answer>({numbers[0]}+{numbers[1]})+{numbers[2]}</answer>" in completion)


run = aha.train(
    "demo",
    reward=[right, adds_up],
    reward_weights=[0.1, 1.0],
    data=rows,
    steps=2 * STEPS,
    rollout={"prompts": PROMPTS, "max_new_tokens": 96},
    optim={"lr": 1e-3},
)

# %% [markdown]
# ## 3. The curve
#
# Watch the entropy beside the share of solved puzzles. What do the completions of a step look like?

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
NAMED_BY = "entropy"
assert findings[NAMED_BY].level != "ok", findings[NAMED_BY].message

# %% [markdown]
# ## 5. Why, and how to mend it
#
# A policy that is certain tries nothing new: the completions of a problem are alike, their rewards
# too, and nothing can be learnt any more.
#
# Mend it: a reward that has more than one way to be earned, a lower `optim.lr`, `algo.clip_high`
# above `algo.clip_low`, or an entropy bonus.
