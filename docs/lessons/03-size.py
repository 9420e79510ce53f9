# %% [markdown]
# # How small is too small?
#
# A script (`python docs/lessons/03-size.py --quick`), or a notebook: jupytext and marimo read
# this file. `--quick` is a smoke run of minutes, too small for a claim; without it the lesson is
# one seed of the whole study, which takes about an hour.

# %%
import sys

from aha.studies.lesson_view import run_lesson
from aha.studies.size_study import NUMBERS, PER_PARAMETER, SIZES, SizeStudy

QUICK = "--quick" in sys.argv  # in a notebook: set it by hand

# %% [markdown]
# ## 1. The claim
#
# TinyZero saw models of 0.5 billion parameters guess and stop, and models of 1.5 billion learn to
# search. It claims that an easier task moves this threshold down. How far?
#
# ## 2. What differs between the cells
#
# What is a fair comparison? A larger model that reads as many tokens *for each parameter* gets
# far more computing. One that gets as many *minutes* reads far less. Both are shown.

# %%
for name, ((width, _, layers), parameters) in SIZES.items():
    print(f"{name}: width {width}, {layers} layers, {PER_PARAMETER * parameters:,} tokens to read")
print("numbers in a puzzle:", NUMBERS)

# %% [markdown]
# ## 3. The smallest experiment
#
# A base of every size, RL on puzzles of 2 to 5 numbers, a test for each size of puzzle.

# %%
study = SizeStudy([0], quick=QUICK)
view = run_lesson(study, "runs/lessons/size" + ("-quick" if QUICK else ""))

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
# * There is no order: larger models are not better, with either way of being fair.
# * The threshold is at the same size for 2 numbers and for 5: then shrinking the task does not
#   help.
#
# ## 6. What came out here
#
# Three seeds (results/README.md): with equal tokens for each parameter puzzles of two numbers are
# learnt from 0.3 million parameters on, those of three by 2.3 million alone, those of four and five
# by none. In equal minutes the smallest model, which has read most, begins and ends highest.
#
# ## 7. Where to go on
#
# `aha study size` runs three seeds, side by side, and judges them. docs/studies.md has the
# published numbers.
