# %% [markdown]
# # Which examples let a model improve?
#
# A script (`python docs/lessons/01-priming.py --quick`), or a notebook: jupytext and marimo read
# this file. `--quick` is a smoke run of minutes, too small for a claim; without it the lesson is
# one seed of the whole study, which takes about half an hour.

# %%
import sys
from itertools import islice

from aha.model.folders import resolve_model
from aha.model.tokenizer import Tokenizer
from aha.studies.example_kinds import KINDS, example_rows
from aha.studies.lesson_view import run_lesson
from aha.studies.priming_study import PrimingStudy

QUICK = "--quick" in sys.argv  # in a notebook: set it by hand

# %% [markdown]
# ## 1. The claim
#
# Two models of the same size get the same RL. One learns to search, the other stays flat. Gandhi
# et al. (arXiv 2503.01307) found why: the first one had the habits already (checking, going
# back). A few examples with these habits make the flat model learn too, even if all of their
# answers are wrong.
#
# ## 2. What differs between the cells
#
# One base has read guesses and arithmetic, but no search. It is fine-tuned on examples of one
# kind: look at them. `dots` has as many tokens as the thought that it stands for: is it the
# length?

# %%
words = Tokenizer.load(resolve_model("aha-tiny"))  # all bases of the study have this vocabulary
for name, kind in KINDS.items():
    (row,) = islice(example_rows(kind, (3,), 3, lambda text: len(words.encode(text))), 1)
    print(f"--- {name}\n{row['prompt']}{row['completion']}\n")

# %% [markdown]
# ## 3. The smallest experiment
#
# A base, a fine-tuning for every kind, the same RL for all, a test before and after.

# %%
study = PrimingStudy([0], quick=QUICK)
view = run_lesson(study, "runs/lessons/priming" + ("-quick" if QUICK else ""))

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
# * The controls (`empty`, `dots`, `nothing`) end as high as the kinds that go back: then habits
#   do not decide.
# * `wrong-only` ends clearly below `all`: then right answers matter after all.
# * Only one seed does it: then it was luck. That is why a verdict needs three.
#
# ## 6. What came out here
#
# Three seeds (results/README.md): going back alone ends below the controls, and with checks .33
# above them. `wrong-only` is .41 below `all`. Two of the three lines above have happened, with a
# model four thousand times smaller. Why? Read completions of both tests in the runs: how often
# does a thought come to the target, and what does it say then?
#
# ## 7. Where to go on
#
# `aha study priming` runs three seeds, side by side, and judges them. docs/studies.md has the
# published numbers.
