"""A search over the settings of a script, and seeds that are added by rule to its cells."""

from pathlib import Path

import pytest

from harness.analysis import search_ranking
from harness.common.errors import HarnessError
from harness.config.sweep_file import load
from harness.execution import driver
from harness.execution.driver import Options
from harness.records.store import Store
from harness.search import search

TRAIN = 'echo "acc=0.$((90 - ($1 - 7) * ($1 - 7) - $4))$3"'  # best at size 7
SEARCH = """\
title: A search
command: sh train.sh {size} {rate} {seed} {penalty}
seeds: 1..2
penalty: 0
score: {stdout: "acc=([0-9.]+)"}
search:
  space:
    size: {low: 1, high: 12}
    rate: {low: 1e-4, high: 1e-2, log: on}
  recipes: 12
  confirm: {best: 1, seeds: 101..102}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.sh").write_text(TRAIN)
    return tmp_path


LOWER = (("0.$((90 - ($1", "0.$((10 + ($1"), ("- $4))", "+ $4))"))  # the same, as a loss


@pytest.mark.parametrize("better", ["higher", "lower"])
def test_a_search_finds_what_scores_best_and_confirms_it(here: Path, better: str) -> None:
    (here / "mine.yaml").write_text(f"{SEARCH}better: {better}\n")
    if better == "lower":
        script = TRAIN
        for old, new in LOWER:
            script = script.replace(old, new)
        (here / "train.sh").write_text(script)
    sweep = load(here / "mine.yaml")
    store = Store(here / "results" / sweep.folder_name)
    found = search.run(sweep, store, Options(in_process=True), lambda progress: None)
    assert found.complete
    assert found.asked == 12
    (best,) = found.confirmed.cells if found.confirmed else ()
    values = [dict(cell.axes) for cell in found.sweep.cells]
    assert dict(best.axes)["size"] in sorted((one["size"] for one in values), key=lambda size: abs(size - 7))[:2]  # type: ignore[operator]
    assert all(1e-4 <= one["rate"] <= 1e-2 for one in values)  # type: ignore[operator]
    assert len({cell.label for cell in found.sweep.cells}) == len(values)
    again = search.run(sweep, store, Options(in_process=True), lambda progress: None)
    assert again.counts.trained_now == 0
    for option in ({"stop_hopeless": True}, {}):
        with pytest.raises(HarnessError, match="cannot be used in the search of a script"):
            search.run(sweep, store, Options(in_process=True, tune=not option), lambda progress: None, **option)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("penalty: 0", "penalty: [0, 1]", "penalty cannot be used beside search"),
        ("    size: {low: 1, high: 12}\n", "", "the command's {size} is filled by nothing"),
        ("    size:", "    width:", "the axis width is not used by the command|filled by nothing"),
        ("{low: 1, high: 12}", "{low: 1}", r"search\.space\.size\.high must be a"),
        ("{low: 1, high: 12}", "[3]", "single value"),
        ("penalty: 0", "penalty: 0\nsize: 3", "size stands both in search.space and beside search"),
        ("  recipes: 12", "  pruner: median", r"search\.pruner cannot be used in the search of a script"),
        ("  recipes: 12", "  lower_is_better: on", "unknown key 'lower_is_better'"),
        ("1..2", "1..1", "a search needs two seeds or more"),
    ],
)
def test_what_can_t_be_searched_is_one_line(here: Path, old: str, new: str, message: str) -> None:
    assert old in SEARCH
    (here / "mine.yaml").write_text(SEARCH.replace(old, new))
    with pytest.raises(HarnessError, match=message):
        load(here / "mine.yaml")


def test_seeds_by_rule_are_added_to_a_script(here: Path) -> None:
    (here / "train.sh").write_text('[ $(($1 % 2)) = 0 ] && echo acc=0.4 || echo "acc=0.6$1"')
    (here / "mine.yaml").write_text(
        "title: By rule\ncommand: sh train.sh {seed}\nscore: {stdout: 'acc=([0-9.]+)'}\nfailed_below: 0.5\n"
        "seeds: {until: failure rate of every cell within ±30 points, first: 4, at_most: 16}\n"
    )
    sweep = load(here / "mine.yaml")
    store = Store(here / "results" / sweep.folder_name)
    ended = driver.run(sweep, store, Options(in_process=True), lambda progress: None)
    assert ended.finished > 4
    assert ended.failed * 2 == ended.finished


def test_what_decides_no_result_may_change_before_the_best_are_confirmed_again(here: Path) -> None:
    def searched(text: str) -> search.SearchOutcome:
        (here / "mine.yaml").write_text(text)
        sweep = load(here / "mine.yaml")
        return search.run(sweep, Store(here / sweep.folder_name), Options(in_process=True), lambda progress: None)

    few = SEARCH.replace("recipes: 12", "recipes: 3")
    first, again = searched(few), searched(f"{few}timeout: 2h\n")
    assert first.confirmed is not None
    assert again.confirmed is not None
    assert [cell.key for cell in again.confirmed.cells] == [cell.key for cell in first.confirmed.cells]
    assert [cell.script.script.timeout for cell in again.confirmed.cells if cell.script] == [7200]
    assert again.confirm_counts is not None
    assert (again.counts.trained_now, again.confirm_counts.trained_now) == (0, 0)
    store = Store(here / first.sweep.folder_name)
    fresh = search_ranking.table(
        again.sweep, store, (first.confirmed, search_ranking.confirm_store(again.sweep, store))
    )
    assert fresh["fresh"].notna().sum() == 1  # of a plan with the time limit of before, too


def test_seeds_that_were_added_stay_where_a_timeout_changes_with_the_rule(here: Path) -> None:
    def trained(points: int, more: str = "") -> driver.SweepOutcome:
        (here / "mine.yaml").write_text(
            "command: sh train.sh {size} 1 {seed} 0\nsize: [6, 7]\nscore: {stdout: 'acc=([0-9.]+)'}\nmajority: 0.1\n"
            f"seeds: {{until: failure rate of every cell within ±{points} points, first: 3, at_most: 30}}\n{more}"
        )
        sweep = load(here / "mine.yaml")
        return driver.run(sweep, Store(here / sweep.folder_name), Options(in_process=True), lambda progress: None)

    first = trained(30)
    assert first.finished > 6
    again = trained(45, "timeout: 2h\n")
    assert (again.trained_now, again.finished) == (0, first.finished)
