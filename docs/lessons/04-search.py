# %% [markdown]
# # Solutions or searches?
#
# A script (`python docs/lessons/04-search.py --quick`), or a notebook: jupytext and marimo read
# this file. `--quick` is a smoke run of minutes, too small for a claim; without it the lesson is
# one seed of the whole study, which takes about half an hour.

# %%
import sys
from itertools import islice

from aha.corpus.shards import documents
from aha.studies.lesson_view import run_lesson
from aha.studies.search_study import MIXES, SearchStudy

QUICK = "--quick" in sys.argv  # in a notebook: set it by hand

# %% [markdown]
# ## 1. The claim
#
# A model that reads the way to the solution alone never sees how to recover from a mistake.
# Stream of Search (arXiv 2404.03683): a model that read searches, many of which fail, solves
# twice as much (.513 against .257), and improves further by its own right completions (STaR) and
# by RL.
#
# ## 2. What differs between the cells
#
# Two corpora of as many tokens. Which one has more solutions? Which one has more to learn from?

# %%
for name, mix in MIXES.items():
    quiet = mix.__class__(**{**vars(mix), "drill": 0.0})
    for document in islice(documents(quiet, 1, lambda numbers, target: True), 2):
        print(f"--- {name}\n{document.prompt}{document.completion}\n")

# %% [markdown]
# ## 3. The smallest experiment
#
# One base goes on with either corpus; RL from each, three rounds of STaR from one; four sets of
# puzzles as tests.

# %%
study = SearchStudy([0], quick=QUICK)
view = run_lesson(study, "runs/lessons/search" + ("-quick" if QUICK else ""))

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
# * The base of solutions solves as much before RL.
# * STaR ends above RL.
# * Puzzles that the writer of the searches did not solve stay unsolved: then the model copies its
#   teacher and finds nothing new.
#
# ## 6. What came out here
#
# Three seeds (results/README.md): who has read searches solves twice as much (.532 against .268),
# and RL (.772) gains more than three rounds of STaR (.697). Both solve puzzles that the writer of
# the searches did not. Wrong arithmetic stays as it was; uses of numbers that are not there fall.
#
# ## 7. Where to go on
#
# `aha study search` runs three seeds, side by side, and judges them. docs/studies.md has the
# published numbers.
