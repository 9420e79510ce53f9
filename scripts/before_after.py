"""Put a puzzle before and after training into README, from the records of a run.

    python scripts/before_after.py runs/demo-seed0                     # chosen by the report's rule
    python scripts/before_after.py runs/demo-seed0 --puzzle "numbers 33 93 30 target 30"

Both completions are those of the run's own held-out test, which has every puzzle once before and
once after training: nothing is generated again. Without --puzzle it is the one that the report
shows (the middle length of those that turned from the one way to the other and from wrong to
right). The two blocks of README and the name of the puzzle above them are replaced; --print only
prints.
"""

import argparse
import re
import sys
from html import escape
from pathlib import Path

from aha.behaviors.turn import Turn
from aha.web.run_comparison import Pair, compare_before_after
from aha.web.runs import RunFolder, open_run
from aha.web.turn_view import telling_pair
from aha.web.ways_of_run import turn_of_run

README = Path(__file__).parents[1] / "README.md"
BLOCK = re.compile(r"<pre>\n.*?\n</pre>", re.DOTALL)
NAME = re.compile(r"(?<=before and after \(`)[^`]+(?=`)")


def choose(run: RunFolder, puzzle: str | None) -> Pair:
    """The same puzzle's row before and after. Ends the program where there is none."""
    paired = compare_before_after(run)
    if paired is None:
        sys.exit(f"{run.path} has no test before and after training")
    if puzzle is not None:
        named = [pair for pair in paired.pairs if name_of(pair) == puzzle]
        return named[0] if named else sys.exit(f"the test of {run.path} has no {puzzle!r}")
    turn = turn_of_run(run)
    if not isinstance(turn, Turn):
        sys.exit(f"the way of search of {run.path} does not turn: name a puzzle with --puzzle")
    telling = telling_pair(paired, turn)
    return telling.pair or sys.exit(telling.rule)


def name_of(pair: Pair) -> str:
    """The first line of the prompt."""
    return str(pair[0].get("prompt", "")).splitlines()[0]


def blocks_of(pair: Pair) -> list[str]:
    """The two completions as HTML."""
    texts = (str(row.get("completion", "")).strip() for row in pair)
    return [f"<pre>\n{escape(text, quote=False)}\n</pre>" for text in texts]


def replaced(page: str, pair: Pair) -> str:
    """The page with this pair in its first two blocks. Ends the program where it has none."""
    places = [match.span() for match in BLOCK.finditer(page)][:2]
    if len(places) < 2 or not NAME.search(page):
        sys.exit("the page has no two <pre> blocks below 'before and after (`PUZZLE`'")
    for (begin, end), block in reversed(list(zip(places, blocks_of(pair), strict=True))):
        page = page[:begin] + block + page[end:]
    return NAME.sub(lambda _: name_of(pair), page, count=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--puzzle", help="the first line of its prompt")
    parser.add_argument("--print", action="store_true", help="print the pair and write nothing")
    parser.add_argument("--page", type=Path, default=README)
    args = parser.parse_args()
    pair = choose(open_run(args.run), args.puzzle)
    verdicts = ["right" if row.get("correct") is True else "wrong" for row in pair]
    print(f"{name_of(pair)}: {verdicts[0]} before, {verdicts[1]} after")
    if args.print:
        print("\n".join(blocks_of(pair)))
        return
    args.page.write_text(replaced(args.page.read_text(encoding="utf-8"), pair), encoding="utf-8")


if __name__ == "__main__":
    main()
