import pytest

from aha.web.completions import (
    PAGE_SIZE,
    CompletionFilter,
    CompletionIndex,
    IndexCache,
    completion_view,
    completions_page,
    groups_page,
)

from .conftest import row, write_rows


@pytest.fixture
def path(tmp_path):
    rows = [row(i // 4, i % 2 == 0, group=i // 4, advantage=0.5) for i in range(100)]
    write_rows(tmp_path / "step.jsonl", rows)
    return tmp_path / "step.jsonl"


@pytest.fixture
def index(path) -> CompletionIndex:
    return IndexCache().index(path)


def page(index: CompletionIndex, start: int = 0, **chosen) -> dict:
    return completions_page(index, CompletionFilter(**chosen), start)


def test_pages_follow_each_other(index):
    first, last = (
        page(index),
        page(index, 96),
    )
    assert first["total"] == first["matching"] == 100 and first["right"] == 50
    assert [one["place"] for one in first["rows"]] == list(range(PAGE_SIZE))
    assert [one["place"] for one in last["rows"]] == [96, 97, 98, 99]
    assert page(index, 10_000)["rows"] == []


def test_filters_work_together(index):
    assert page(index, verdict=True)["matching"] == 50
    assert page(index, verdict=False, group=3)["matching"] == 2
    assert page(index, text="75+7=82 YES")["matching"] == 50
    assert page(index, verdict=False, text="75+7")["matching"] == 0
    assert page(index, text="makes 35")["matching"] == 50


def test_a_range_of_rewards_and_an_order_by_advantage(tmp_path):
    rewards = [0.0, 0.5, 1.0, 0.25, None]
    rows = [
        row(n, False, reward=reward, advantage=None if n == 4 else n / 10 - 0.2)
        for n, reward in enumerate(rewards)
    ]
    write_rows(tmp_path / "step.jsonl", rows)
    index = IndexCache().index(tmp_path / "step.jsonl")
    assert page(index)["rewards"] == [[0.0, 0.0, 1], [0.25, 0.25, 1], [0.5, 0.5, 1], [1.0, 1.0, 1]]
    inside = page(index, low=0.25, high=0.5)
    assert [one["reward"] for one in inside["rows"]] == [0.5, 0.25]
    best, worst = (page(index, order=order)["rows"] for order in ("best", "worst"))
    assert [one["advantage"] for one in best] == pytest.approx([0.1, 0.0, None, -0.1, -0.2])
    assert [one["place"] for one in worst] == [0, 1, 2, 4, 3]
    assert page(index, low=2.0)["matching"] == 0


def test_many_rewards_share_bars_that_a_filter_can_take(tmp_path):
    rewards = [n**2 / 10_000 for n in range(101)] + [-3.0]
    write_rows(tmp_path / "step.jsonl", [row(0, False, reward=one) for one in rewards])
    index = IndexCache().index(tmp_path / "step.jsonl")
    bars = groups_page(index, 0)["rewards"]
    assert len(bars) == 12 and sum(count for *_, count in bars) == 102
    assert (bars[0][:2], bars[-1][1]) == ([-3.0, -3.0], 1.0) and bars[5][2] == 0
    for low, high, count in bars:
        assert page(index, low=low, high=high)["matching"] == count
    assert [low for low, *_ in bars] == sorted(low for low, *_ in bars)
    write_rows(tmp_path / "none.jsonl", [row(0, False, reward="x")])
    assert groups_page(IndexCache().index(tmp_path / "none.jsonl"), 0)["rewards"] == []


def test_a_file_that_grows_is_read_on(path):
    cache = IndexCache()
    index = cache.index(path)
    with path.open("a") as out:
        out.write('{"correct": true')
    assert len(cache.index(path).entries) == 100
    with path.open("a") as out:
        out.write("}\nnonsense\n")
    assert cache.index(path) is index
    assert len(index.entries) == 101 and index.faults() == ["step.jsonl: damaged lines: 1 no JSON"]


def test_a_file_that_was_replaced_is_read_anew(path):
    cache = IndexCache()
    cache.index(path)
    path.unlink()
    write_rows(path, [row(0, True)] * 200)
    assert len(cache.index(path).entries) == 200


def test_groups_have_a_cell_for_every_member(index):
    found = groups_page(index, 0)
    assert found["groups"] == 25 and len(found["lines"]) == 25
    assert found["lines"][1]["cells"][0] == [4, True, 1.0, 0.5, 60]
    assert found["lines"][1]["puzzle"] == {"numbers": (3, 7, 25), "target": 82}


def test_a_test_has_groups_of_one(tmp_path):
    write_rows(tmp_path / "before.jsonl", [row(i, True) for i in range(3)])
    found = groups_page(IndexCache().index(tmp_path / "before.jsonl"), 0)
    assert [len(line["cells"]) for line in found["lines"]] == [1, 1, 1]


def test_a_long_completion_is_cut_and_says_so():
    text = "7+3=10 no\n" * 10_000
    one = completion_view(row(0, False, completion=text), 0, 1000)
    assert one["chars"] == 100_000 and one["hidden"] == 99_000
    assert sum(len(piece[0]) for piece in one["pieces"]) == 1000


@pytest.mark.parametrize("broken", [{}, {"reward": "x", "group": [], "id": 3, "reason": None}])
def test_a_row_of_another_shape_is_shown_all_the_same(broken):
    one = completion_view(broken, 0, 100)
    assert one["pieces"] == [] and one["reward"] is None and not one["correct"]
