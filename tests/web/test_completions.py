import pytest

from aha.web.completions import (
    PAGE_SIZE,
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


def test_pages_follow_each_other(index):
    first, last = (
        completions_page(index, None, None, "", 0),
        completions_page(index, None, None, "", 96),
    )
    assert first["total"] == first["matching"] == 100 and first["right"] == 50
    assert [one["place"] for one in first["rows"]] == list(range(PAGE_SIZE))
    assert [one["place"] for one in last["rows"]] == [96, 97, 98, 99]
    assert completions_page(index, None, None, "", 10_000)["rows"] == []


def test_filters_work_together(index):
    assert completions_page(index, True, None, "", 0)["matching"] == 50
    assert completions_page(index, False, 3, "", 0)["matching"] == 2
    assert completions_page(index, None, None, "75+7=82 YES", 0)["matching"] == 50
    assert completions_page(index, False, None, "75+7", 0)["matching"] == 0
    assert completions_page(index, None, None, "makes 35", 0)["matching"] == 50


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
