"""The figures that the pages quote are those that results/ holds."""

import json
import re

import pytest

from aha.algo.algorithms import method_of
from aha.algo.recipe import load_recipe
from aha.api.recipe_names import find_recipe
from aha.cli.plan import ASSUMED
from aha.core.config import RunConfig
from aha.plan.cluster import Cluster
from aha.plan.machines import load_cards
from aha.plan.prediction import planned_on
from aha.plan.shapes import shape_of
from aha.plan.speed import TaskSizes, Workload

from .pages import DOCS, README, RESULTS, complain, links, read, section, shown


def rate(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


def span(low: float, high: float, digits: int) -> str:
    """The smallest and the largest of some numbers; one where they look alike."""
    first, last = f"{low:.{digits}f}", f"{high:.{digits}f}"
    return first if first == last else f"{first}-{last}"


def test_the_table_of_readme_has_the_figures_of_results():
    rows = re.findall(
        r"^\| \[[^\]]+\]\(results/README\.md#([\w-]+)\).*$", read(README), re.MULTILINE
    )
    assert rows == ["demo", "demo-avx2", "laptop-3to4", "multiply"]
    for name in rows:
        (row,) = re.findall(rf"^\| \[[^\]]+\]\(results/README\.md#{name}\).*$", read(README), re.M)
        seeds = json.loads(read(RESULTS / name / "seeds.json"))
        minutes = [seconds / 60 for seconds in seeds["training_s"]]
        cents = [100 * usd for usd in seeds["cost_usd"]]
        whole = 0 if min(minutes) > 20 else 1
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells[2:] == [
            rate(seeds["before"][0]),
            " ".join(map(rate, seeds["after"])),
            span(min(minutes), max(minutes), whole),
            span(min(cents), max(cents), 1) + " cents",
        ], name
        assert len(set(seeds["before"])) == 1


def planned_on_h100(cfg: RunConfig, held_out: tuple[int, int], tokens: float) -> float:
    """Seconds with today's table, for completions of so many tokens."""
    shape = shape_of(cfg.model.path.removesuffix("-Instruct"))
    load = Workload(cfg, method_of(cfg), shape, TaskSizes(0.0, held_out))
    return planned_on(load, load_cards()[1]["h100-80gb"], tokens, Cluster()).cost.seconds


def test_plan_says_how_far_its_gpus_are_off():
    ratios = []
    for name, problems in (("sums-h100", 87), ("ladder-h100", 200)):
        run = json.loads(read(RESULTS / name / "seed_0.json"))
        summary, cfg = run["summary"], RunConfig.model_validate(run["config"])
        plan = summary["plan"]
        planned = planned_on_h100(
            cfg, (problems, summary["before"]["problems"]), plan["mean_tokens"]["measured"]
        )
        ratios.append(plan["figures"]["seconds"]["measured"] / planned)
    row = read(RESULTS / "gpu/first_rows.txt").partition("laptop-8gb:")[2]
    [step], [tokens] = re.findall(r" step_s ([\d.]+)", row), re.findall(r"of_a_step (\d+)", row)
    # As `benchmarks/gpu/steps.py` runs it: every row is trained on, and is as long as the limit.
    limit = load_recipe(find_recipe("laptop-8gb"), {}).rollout.max_new_tokens
    prompts = int(tokens) // limit // 8
    changes = {"algo.advantage": "reinforce", "rollout.prompts": prompts, "steps": 1}
    changes |= {"eval.every": 0, "eval.final": 0, "usd_per_hour": 0.0, "watts": 0.0}
    cfg = load_recipe(find_recipe("laptop-8gb"), changes)
    ratios.append(float(step) / planned_on_h100(cfg, (0, 0), limit))
    words = f"three recipes then took {min(ratios):.1f} to {max(ratios):.1f} times the planned time"
    assert words in ASSUMED
    assert words.partition("recipes ")[2] in read(DOCS / "using.md")


def test_the_page_of_habits_says_how_soon_the_demo_learns():
    seconds = json.loads(read(RESULTS / "demo/seeds.json"))["time_to_aha_s"]
    words = f"past one half after {span(min(seconds), max(seconds), 0)} seconds of training"
    assert words in read(DOCS / "habits.md")


def test_readme_says_what_blind_search_solves_and_what_the_base_cost():
    def blind(name: str) -> list[float]:
        seeds = [json.loads(read(path)) for path in sorted((RESULTS / name).glob("seed_*.json"))]
        return [seed["blind_search_same_mean_tokens"]["solve_rate"] for seed in seeds]

    low, high = min(blind("demo")), max(blind("demo"))
    assert f"solves {low:.2f}-{high:.2f} of".replace("0.", ".") in read(README)
    base = json.loads(read(RESULTS / "demo/seed_0.json"))["summary"]["base_cost_usd"]
    assert f"The base model cost {100 * base:.0f} cents" in read(README)


def test_the_results_page_links_every_file_that_is_filed():
    linked = {(RESULTS / link).resolve() for link in links(read(RESULTS / "README.md"))}
    filed = {path for path in RESULTS.rglob("*.*") if path.is_file()} - {RESULTS / "README.md"}
    complain(sorted(map(shown, filed - linked)), "results/README.md does not link:")


@pytest.mark.parametrize("name", ["demo", "demo-avx2", "laptop-3to4", "multiply"])
def test_the_results_page_quotes_what_is_filed(name):
    page = section(read(RESULTS / "README.md"), name)
    seeds = json.loads(read(RESULTS / name / "seeds.json"))
    assert all(commit[:7] in page for commit in seeds["commit"])
    for i in range(len(seeds["seeds"])):
        low, high = seeds["after_interval"][i]
        seconds = round(seeds["training_s"][i])
        figures = [f"{seeds['before'][i]:.3f}", f"{seeds['after'][i]:.3f}"]
        figures += [f"[{low:.3f}, {high:.3f}]", f"{seconds // 60}:{seconds % 60:02}"]
        figures += [f"{100 * seeds['cost_usd'][i]:.1f} cents"]
        if "held_out_targets" in seeds:
            figures += [f"{seeds['held_out_targets'][i]:.3f}"]
        assert [figure for figure in figures if figure not in page] == []


def last(name: str) -> dict:
    """The last row of a file of benchmarks."""
    return json.loads(read(RESULTS / "bench" / name).splitlines()[-1])


def test_the_pages_quote_the_last_rows_of_the_benchmarks():
    page = section(read(RESULTS / "README.md"), "bench")
    for case in last("rollout.jsonl")["cases"]:
        ratio = case["ratio"]
        spread = f"{ratio['median']:.1f} [{ratio['min']:.1f}, {ratio['max']:.1f}]"
        assert f"{case['rows']} rows {spread}" in page
    sides = last("step.jsonl")["sides"]
    fastest, default = (sides[name]["ratio"]["median"] for name in list(sides)[1:])
    assert f"{fastest:.1f} times its fastest configuration, {default:.1f} times its default" in page
    assert f"{last('detector.jsonl')['cpu_ms']['median']:.2f} ms" in page
    for name in ("rollout.jsonl", "step.jsonl", "detector.jsonl"):
        assert last(name)["environment"]["commit"][:7] in page


def test_the_pages_quote_the_way_to_the_first_reward():
    row, page = last("first_reward.jsonl"), section(read(RESULTS / "README.md"), "bench")
    for name, of in row["processor_seconds"].items():
        line = f"with_{name}.py) | {row['lines'][name]} | {of['median']:.1f} |"
        assert line in read(DOCS / "python.md"), line
        assert f"{of['median']:.1f}" in page
    five = json.loads(read(RESULTS / "bench/five_minutes.json"))
    assert five["learnt"] and five["report"]
    first, ended = (sum(five["rewards"][part]) / 3 for part in (slice(3), slice(-3, None)))
    assert f"{first:.2f} in the first three steps, {ended:.2f} in the last three" in page
    seconds = five["processor_seconds"]
    assert f"{seconds['pip install']:.0f}" in page and f"{seconds['train and report']:.0f}" in page
    for commit in (row["environment"]["commit"], five["environment"]["commit"]):
        assert commit[:7] in page


def test_the_papers_page_quotes_the_lab():
    for row in json.loads(read(RESULTS / "lab/lab.json"))["recipes"]:
        look = row["looks"][-1]
        low, high = look["interval"]
        cells = f"| `{row['recipe']}` | {look['solve_rate']:.3f} [{low:.3f}, {high:.3f}] |"
        assert cells in read(DOCS / "papers.md")
