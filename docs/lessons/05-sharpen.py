# %% [markdown]
# # Does RL add, or sharpen?
#
# A script (`python docs/lessons/05-sharpen.py --quick`), or a notebook: jupytext and marimo read
# this file. `--quick` is a smoke run of minutes, too small for a claim; without it the lesson is
# one seed of the whole study, which takes a quarter of an hour.

# %%
import sys

from aha.eval.statistics import pass_at_k
from aha.studies.lesson_view import run_lesson
from aha.studies.sharpen_study import SharpenStudy

QUICK = "--quick" in sys.argv  # in a notebook: set it by hand

# %% [markdown]
# ## 1. The claim
#
# After RL a model is right more often. Can it solve what it could not solve before in 64 tries?
# Yue et al. (arXiv 2504.13837) say no: RL makes likelier what was there, and pass@64 may even
# fall.
#
# ## 2. What differs between the cells
#
# pass@k is the chance that one of k completions is right. It is estimated from 64 completions of
# a problem without trying all groups of k.

# %%
for right in (0, 1, 4, 16):
    print(right, "of 64 right:", {k: round(pass_at_k(64, right, k), 3) for k in (1, 4, 16, 64)})

# %% [markdown]
# ## 3. The smallest experiment
#
# Two bases: one has read searches, one guesses alone. RL; 64 completions of every test problem
# before and after.

# %%
study = SharpenStudy([0], quick=QUICK)
view = run_lesson(study, "runs/lessons/sharpen" + ("-quick" if QUICK else ""))

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
# * pass@64 rises as much as pass@1: then RL adds.
# * Many problems are solved after RL alone.
#
# ## 6. What came out here
#
# Three seeds (results/README.md): from the base of guesses pass@1 rises from .118 to .275 and
# pass@64 falls from .855 to .663; RL alone solves .3 % of the puzzles. The base of searches solves
# nearly all of them in 64 tries before RL: whether RL adds cannot be seen there.
#
# ## 7. Where to go on
#
# `aha study sharpen` runs three seeds, side by side, and judges them. docs/studies.md has the
# published numbers.
