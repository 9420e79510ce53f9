# %% [markdown]
# # What do more tokens of thinking buy?
#
# A script (`python docs/lessons/11-thinking.py --quick`), or a notebook: jupytext and marimo read
# this file. `--quick` tests few problems with one seed, too few for a claim. Without it the lesson
# is one seed of the whole study, which takes minutes. Names of models may follow:
# `python docs/lessons/11-thinking.py aha-tiny runs/demo` sets the base beside a run of `aha demo`.

# %%
import sys

from aha.eval.suite import held_out
from aha.model.folders import resolve_model
from aha.model.weights import load_model
from aha.rollout.engine import Sampling
from aha.rollout.native import open_engine
from aha.rollout.thinking_budget import ThinkingBudget
from aha.studies.lesson_view import run_lesson
from aha.studies.thinking_cells import ThinkingGrid, default_budgets, subjects_of
from aha.studies.thinking_study import ThinkingStudy
from aha.tasks.countdown import Countdown

# A notebook's program has words of its own there: set both by hand.
WORDS = sys.argv[1:] if sys.argv[0].endswith("11-thinking.py") else []
QUICK = "--quick" in WORDS
MODELS = [word for word in WORDS if word != "--quick"] or ["aha-tiny"]
LIMIT = 320  # tokens of a completion

# %% [markdown]
# ## 1. The claim
#
# s1 (arXiv 2501.19393) cuts a thought at a budget, or writes "Wait" where it would have ended, and
# gets more right answers with more tokens. This keeps every budget. To draw thoughts until one is
# short enough keeps it too, but there the longer ones are the worse ones: a thought is long where
# the problem is hard.
#
# ## 2. What differs between the cells
#
# The same model and the same draws, closed at another token. Look at one thought under three
# budgets.

# %%
loaded = load_model(resolve_model(MODELS[0]))
task, engine = Countdown(), open_engine(loaded.policy, loaded.tokenizer)
(prompt,) = held_out(task, loaded.tokenizer, "train", 1, 2)
print(prompt.text)
for most in (8, 32, 288):
    budget = ThinkingBudget(most)
    ((completion,),) = engine.generate([prompt], Sampling(LIMIT, 1, 1.0, 3, budget))
    print(f"--- at most {most} tokens\n{completion.text}\n")

# %% [markdown]
# ## 3. The smallest experiment
#
# Eight budgets (with `--quick` four), waits, several thoughts side by side, rejection; and beside
# them searches without a model, with as many tokens.

# %%
grid = ThinkingGrid(
    subjects=subjects_of(MODELS),
    seeds=(0,),
    problems=100 if QUICK else 1_000,
    budgets=default_budgets(ThinkingBudget().most(LIMIT), QUICK),
    waits=(1, 2) if QUICK else (1, 2, 4, 6),
    completions=4 if QUICK else 16,
    max_new_tokens=LIMIT,
    task_settings={"numbers": (3,)},
)
study = ThinkingStudy(grid)
view = run_lesson(study, "runs/lessons/thinking" + ("-quick" if QUICK else ""))

# %% [markdown]
# ## 4. The table and the curves
#
# In a notebook, `view` alone shows the page with its figures.

# %%
print(view)
view

# %% [markdown]
# ## 5. What would prove it wrong?
#
# * The curve of budgets is flat: then the model does nothing with its tokens. Is it so for
#   `aha-tiny`, which mostly guesses? And after RL?
# * A search by chance has as much with as many tokens: then it is patience and no insight.
# * Several short thoughts beat a long one at equal tokens.
#
# ## 6. Where to go on
#
# `aha study thinking aha-tiny runs/a,runs/b,runs/c` runs three seeds and judges them.
# docs/studies.md has the published numbers.
