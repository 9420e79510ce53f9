# %% [markdown]
# # Break it: collapsed entropy
#
# An exercise: the training is broken on purpose. Look at the curve, say what went wrong, and only
# then ask the doctor. A script (`python docs/lessons/10-break-entropy.py --quick`) or a notebook.

# %%
import random
import sys

import aha
from aha.doctor.run_checks import diagnose

QUICK = "--quick" in sys.argv  # in a notebook: set it by hand
STEPS, PROMPTS = (20, 8) if QUICK else (60, 32)

# %% [markdown]
# ## 1. The puzzles
#
# Sums of three numbers: the packaged model solves some of them.

# %%
draw = random.Random(0)
rows = []
for numbers in (draw.sample(range(1, 30), 3) for _ in range(2_000)):
    target = sum(numbers)
    if target <= 99:
        prompt = f"numbers {' '.join(map(str, numbers))} target {target}\n<think>\n"
        rows.append({"prompt": prompt, "numbers": numbers})


def right(completion, numbers):
    answer = completion.partition("<answer>")[2].partition("</answer>")[0]
    terms = answer.replace("(", "").replace(")", "").split("+")
    return float(sorted(terms) == sorted(map(str, numbers)))


# %% [markdown]
# ## 2. What is broken
#
# The reward is honest. The learning rate is twenty times as high as that of the demo.


# %%
run = aha.train(
    "demo",
    reward=right,
    data=rows,
    steps=STEPS,
    rollout={"prompts": PROMPTS, "max_new_tokens": 128},
    optim={"lr": 8e-3},
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
# Mend it: a lower `optim.lr`, `algo.clip_high` above `algo.clip_low`, an entropy bonus.
