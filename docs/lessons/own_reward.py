# %% [markdown]
# # A reward of your own
#
# Ten minutes, two CPU cores, no network. A script (`python docs/lessons/own_reward.py`), or a
# notebook: `jupytext --to notebook` and `marimo convert` both read this file.
#
# The packaged model knows puzzles such as "numbers 3 7 25 target 82": it tries operations until
# one hits the target, mostly without success. We give it puzzles with a secret, pay for right
# answers alone, and watch it find the secret out.

# %%
import random

import aha

STEPS = 12

# %% [markdown]
# ## 1. The data: a list of dicts
#
# Every row has a prompt, which the model reads as it stands. The other columns are for the reward.
# The secret: the target is always the sum of all numbers.

# %%
draw = random.Random(0)
rows = []
for numbers in (draw.sample(range(1, 60), 3) for _ in range(600)):
    prompt = f"numbers {' '.join(map(str, numbers))} target {sum(numbers)}\n<think>\n"
    rows.append({"prompt": prompt, "numbers": numbers})
rows[0]

# %% [markdown]
# ## 2. What does the model write before?
#
# Several completions of one prompt differ. RL needs that: it makes the good ones likelier.

# %%
for written in aha.generate("aha-tiny", rows[0]["prompt"], n=3, max_new_tokens=64):
    print(written, end="\n---\n")


# %% [markdown]
# ## 3. The reward: a function
#
# `completion` is the text after the prompt, `numbers` the column of that name. Try it on texts
# first: a reward that pays for the wrong thing teaches the wrong thing.


# %%
def right(completion, numbers):
    answer = completion.partition("<answer>")[2].partition("</answer>")[0]
    terms = answer.replace("(", "").replace(")", "").split("+")
    return float(sorted(terms) == sorted(map(str, numbers)))


assert right("</think>\n<answer>(3+7)+25</answer>", [3, 7, 25]) == 1
assert right("</think>\n<answer>3*7+25</answer>", [3, 7, 25]) == 0

# %% [markdown]
# ## 4. Training
#
# Each step asks 16 prompts 16 times, grades the completions, compares each with the others of its
# prompt, and moves the weights. A tenth of the prompts is held out: the model is tested on them
# before and after.

# %%
run = aha.train("demo", reward=right, data=rows, steps=STEPS, rollout={"prompts": 16})
print(run)

# %% [markdown]
# ## 5. What changed?
#
# In a notebook, `run` alone shows the curve and some completions; `run.metrics` is a DataFrame.

# %%
for row in run.rows:
    print(f"step {row['step']:>2}: solved {row['solve_rate']:.0%}, {row['mean_tokens']:.0f} tokens")
for row in run.completions[:3]:
    print(row["completion"], "reward", row["reward"])
run

# %% [markdown]
# ## 6. A second reward
#
# Rewards add up, each with its weight. This one pays for brevity: the model loses its search, which
# the puzzles with the secret do not need. Would you want that for other puzzles?


# %%
def short(completion):
    return -len(completion) / 100


both = aha.train(
    "demo",
    reward=[right, short],
    reward_weights=[1, 0.2],
    data=rows,
    steps=STEPS,
    rollout={"prompts": 16},
)
print(both, {key: round(both.rows[-1][key], 2) for key in ("reward_right", "reward_short")})

# %% [markdown]
# ## 7. Where to go on
#
# * `run.report()` writes one HTML file that opens offline.
# * `aha.evaluate(run, reward=right, n=50)` tests it again; with other data, on other puzzles.
# * Does it still solve puzzles without the secret? `aha.evaluate(run, task="countdown", n=100)`
#   against `aha.evaluate("aha-tiny", n=100)` says what the secret has cost.
