"""The exact detector: milliseconds to read one completion of about 300 tokens.

Measured: `behaviors.detector.read` on completions of the corpus writer (the mix that aha-tiny has
read) that have between 280 and 320 of aha-tiny's tokens; all of them once is a round. Wall and
processor milliseconds of one completion, medians of the rounds. The counts of all of them together
are filed as a hash, so that a faster detector that counts otherwise is seen.

Not measured: `annotate`, which the dashboard calls and which keeps marks besides; free text.
"""

import argparse
import hashlib
from pathlib import Path

from _common import busy, file_row, head, show, spread, timed, use_threads

from aha.behaviors.detector import Behaviours, count_behaviours
from aha.corpus.bases import TraceMix
from aha.corpus.shards import documents
from aha.model.tokenizer import build_tokenizer

LEAST, MOST = 280, 320
MUST_MS = 0.2


def read_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--completions", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--warmup", type=int, default=1, help="rounds that do not count")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, help="append the result to this file of JSON lines")
    return parser.parse_args()


def completions(count: int, seed: int) -> list[tuple[str, tuple[int, ...], int]]:
    """The first `count` completions of the wanted length, each with its puzzle."""
    tokenizer, samples = build_tokenizer(), []
    for prompt, completion in documents(TraceMix(), seed, lambda numbers, target: True):
        if prompt.startswith("numbers ") and LEAST <= len(tokenizer.encode(completion)) <= MOST:
            words = prompt.split("\n")[0].split()
            place = words.index("target")
            numbers = tuple(map(int, words[1:place]))
            samples.append((completion, numbers, int(words[place + 1])))
        if len(samples) == count:
            return samples
    raise AssertionError("the corpus writer never ends")


def read_all(samples: list[tuple[str, tuple[int, ...], int]]) -> list[Behaviours]:
    return [count_behaviours(*sample) for sample in samples]


def main() -> None:
    args = read_args()
    use_threads(args.threads)
    settings = {key: value for key, value in vars(args).items() if key != "json"}
    row = head("detector", (), settings | {"tokens": [LEAST, MOST]})
    samples = completions(args.completions, args.seed)
    rounds = [timed(read_all, samples) for _ in range(args.warmup + args.rounds)][args.warmup :]
    behaviours = rounds[0].result
    row["wall_ms"] = spread([1000 * run.seconds / len(samples) for run in rounds])
    row["cpu_ms"] = spread([1000 * run.cpu / len(samples) for run in rounds])
    row["must_ms"] = MUST_MS
    row["characters"] = sum(len(text) for text, _, _ in samples) / len(samples)
    row["lines"] = sum(counts.lines for counts in behaviours) / len(behaviours)
    row["counts"] = hashlib.sha256(repr(behaviours).encode()).hexdigest()[:16]
    print(
        f"one completion, {row['characters']:.0f} characters, {row['lines']:.1f} calculations: "
        f"wall {show(row['wall_ms'], '.3f')} ms, processor {show(row['cpu_ms'], '.3f')} ms, "
        f"must be below {MUST_MS} ms; counts {row['counts']}"
    )
    busy([run.cpu / run.seconds for run in rounds])
    file_row(args.json, row)


if __name__ == "__main__":
    main()
