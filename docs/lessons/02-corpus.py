# %% [markdown]
# # How much must a base have read?
#
# A script (`python docs/lessons/02-corpus.py --quick`), or a notebook: jupytext and marimo read
# this file. `--quick` is a smoke run of minutes, too small for a claim; without it the lesson is
# one seed of the whole study, which takes about half an hour.

# %%
import sys
from itertools import islice

from aha.corpus.shards import documents
from aha.studies.corpus_study import RATES, SEARCHED, CorpusStudy
from aha.studies.lesson_view import run_lesson

QUICK = "--quick" in sys.argv  # in a notebook: set it by hand

# %% [markdown]
# ## 1. The claim
#
# Priming adds habits after pre-training. Are they better in the corpus? Gandhi et al. continued
# the pre-training of a model on text rich in habits: it reached .493 by RL; the control .367.
#
# ## 2. What differs between the cells
#
# One dial: the share of puzzles that are worked out by a search. All else is the same. These are
# some documents at a rate of 20 %: find the searches.

# %%
mix = SEARCHED.__class__(**{**vars(SEARCHED), "search": 0.2, "drill": 0.0})
for document in islice(documents(mix, 0, lambda numbers, target: True), 8):
    print(document.prompt + document.completion, end="\n\n")
RATES

# %% [markdown]
# ## 3. The smallest experiment
#
# One base goes on with a corpus of every rate; then the same RL for all.

# %%
study = CorpusStudy([0], quick=QUICK)
view = run_lesson(study, "runs/lessons/corpus" + ("-quick" if QUICK else ""))

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
# * The curve against the rate is flat, or falls.
# * The base without searches learns as much: then RL finds the habits by itself.
#
# ## 6. What came out here
#
# Three seeds (results/README.md): .236, .248, .244 and .509 after RL. The curve is flat up to 5 %
# and leaps at 20 %. RL multiplies a habit that it meets often enough, and takes away one that is
# rare. How often is enough? Rates of 8, 11 and 15 % would tell: `RATES` in corpus_study.py.
#
# ## 7. Where to go on
#
# `aha study corpus` runs three seeds, side by side, and judges them. docs/studies.md has the
# published numbers.
