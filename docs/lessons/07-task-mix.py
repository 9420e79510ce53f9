# %% [markdown]
# # Does a second task help or harm?
#
# A script (`python docs/lessons/07-task-mix.py --quick`), or a notebook: jupytext and marimo read
# this file. `--quick` is a smoke run of minutes, too small for a claim; without it the lesson is
# one seed of the whole study, which takes a quarter of an hour.

# %%
import sys
from itertools import islice

from aha.studies.lesson_view import run_lesson
from aha.studies.mix_study import RUNGS, MixStudy
from aha.tasks.ladder import Ladder

QUICK = "--quick" in sys.argv  # in a notebook: set it by hand

# %% [markdown]
# ## 1. The claim
#
# Sky-T1 added code to mathematics: mathematics fell from 43.3 to 36.7 until the data were
# balanced again. Do Countdown and products disturb each other, or does one teach the other?
#
# ## 2. What differs between the cells
#
# One stream of problems, from one task or from both. With both, each task has half as many problems
# in as many steps; the fourth cell has twice the steps, and so as many problems of each.

# %%
for name, rungs in RUNGS.items():
    task = Ladder(rungs)
    print(name, [task.ask(problem) for problem in islice(task.problems("train", 0), 4)])

# %% [markdown]
# ## 3. The smallest experiment
#
# A base that has read both, RL on each mixture, tests on both tasks.

# %%
study = MixStudy([0], quick=QUICK)
view = run_lesson(study, "runs/lessons/task-mix" + ("-quick" if QUICK else ""))

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
# * Both together, with as many problems of each, end as high as each alone: no interference.
# * Training on products alone changes nothing in Countdown: no transfer.
#
# ## 6. What came out here
#
# Three seeds (results/README.md): beside as many puzzles, products do no harm (.570 against .508)
# and take none themselves. In the same number of steps each task has half as many problems, and
# puzzles lose .20. RL on one task alone does not help the other.
#
# ## 7. Where to go on
#
# `aha study task-mix` runs three seeds, side by side, and judges them. docs/studies.md has the
# published numbers.
