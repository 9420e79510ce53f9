# %% [markdown]
# # Break it: a length bias
#
# An exercise: the training is broken on purpose. Look at the curve, say what went wrong, and only
# then ask the doctor. A script (`python docs/lessons/09-break-length.py --quick`) or a notebook.

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
# A second reward pays for length: long thoughts are right more often, so why not ask for them?


# %%
def long(completion):
    return min(1.0, len(completion) / 400)


run = aha.train(
    "demo",
    reward=[right, long],
    reward_weights=[0.1, 2.0],
    data=rows,
    steps=2 * STEPS,
    rollout={"prompts": PROMPTS, "max_new_tokens": 256},
    optim={"lr": 1e-3},
)

# %% [markdown]
# ## 3. The curve
#
# How many tokens does a right answer cost at the start, and at the end?

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
NAMED_BY = "length"
assert findings[NAMED_BY].level != "ok", findings[NAMED_BY].message

# %% [markdown]
# ## 5. Why, and how to mend it
#
# Longer is not better. A loss that divides by the length of each completion has the same bias in
# small: long wrong answers are punished less for each token (arXiv 2503.20783).
#
# Mend it: no reward for length; `algo.aggregation` token_mean or sequence_sum.
