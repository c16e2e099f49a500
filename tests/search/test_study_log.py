"""The journal of a search that was damaged, cut, left behind by a kill, or is something else."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from driving import quiet
from searches import journal
from typer.testing import CliRunner

from harness.cli.app import app
from harness.common.errors import HarnessError
from harness.config.sweep_file import load
from harness.config.trials import Sweep
from harness.execution.driver import Options
from harness.execution.verification import verify
from harness.records import study_log
from harness.records.store import Store
from harness.search import search

TEXT = """\
command: echo acc=0.{seed}{size}
seeds: 1..2
score: {stdout: "acc=([0-9.]+)"}
search: {space: {size: {low: 1, high: 9}, way: [a, b]}, sampler: random, recipes: %d}
"""


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], tuple[Sweep, Store]]:
    """The sweep of a search with so many recipes, and its folder by a relative name, as `results` is."""
    monkeypatch.chdir(tmp_path)

    def make(recipes: int) -> tuple[Sweep, Store]:
        path = tmp_path / "find.yaml"
        path.write_text(TEXT.replace("{size}", "{size} {way}") % recipes)
        sweep = load(path)
        return sweep, Store(Path("results") / sweep.folder_name)

    return make


def go_on(begun: Callable[[int], tuple[Sweep, Store]], recipes: int) -> search.SearchOutcome:
    return search.run(*begun(recipes), Options(in_process=True), quiet)


def lines(change: Callable[[list[bytes]], list[bytes]]) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))


def no_choice(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"way","param_value_internal":', b'"way","param_value_internal":7'))


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a line is cut": (lines(lambda read: [*read[:4], read[4][:30] + b"\n", *read[5:]]), "line 5 is none"),
    "the last line is cut": (lines(lambda read: [*read[:-1], read[-1][:30] + b"\n"]), "line "),
    "no operation": (lines(lambda read: [*read[:4], b"[1]\n", *read[4:]]), "line 5 is none"),
    "a choice that is none": (no_choice, "line 5 is none"),
    "no text": (lambda path: path.write_bytes(bytes(range(256))), "line 1 is none"),
    "a FIFO": (fifo, "a FIFO"),
    "a link": (link, "a symbolic link"),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_study_is_one_line_and_costs_no_more_than_itself(begun, kind: str) -> None:
    harm, said = DAMAGE[kind]
    ended = go_on(begun, 2)
    sweep, store = begun(3)
    harm(store.folder / study_log.NAME)
    if kind != "the last line is cut":  # which Optuna reads over, but nothing may be written behind
        assert search.stopped(sweep, store) == search.switches(sweep, store) == ()
    with pytest.raises(HarnessError, match=f"^cannot read .*study.log: {said}"):
        go_on(begun, 3)
    named = [finding.file for finding in verify.check(ended.sweep, store).problems]
    assert named == [study_log.NAME]
    told = CliRunner().invoke(app, ["status", str(store.folder), "--json"])
    assert (told.exit_code, '"finished": 4' in told.stdout) == (0, True)


@pytest.mark.parametrize(
    "harm",
    [Path.unlink, lines(lambda read: read[:2]), lines(lambda read: [one for one in read if b'"way"' not in one])],
)
def test_a_study_that_lacks_a_trained_recipe_is_not_gone_on_with(begun, harm: Callable[[Path], object]) -> None:
    go_on(begun, 2)
    _, store = begun(3)
    harm(store.folder / study_log.NAME)
    with pytest.raises(HarnessError, match=r"study.log was cut or edited: it lacks the recipe 'size \d, way [ab]'"):
        go_on(begun, 3)


def test_what_a_kill_left_of_a_line_is_removed_and_the_search_goes_on_as_if_nothing_had_been(begun) -> None:
    go_on(begun, 3)
    _, store = begun(3)
    path = store.folder / study_log.NAME
    whole, before = path.read_bytes(), journal(store)
    for cut in (10, len(whole.splitlines(keepends=True)[-1]), len(whole.splitlines(keepends=True)[-1]) + 20):
        path.write_bytes(whole[:-cut])
        ended = go_on(begun, 3)
        assert (ended.asked, ended.counts.trained_now, ended.complete) == (3, 0, True)
        assert [(one.params, one.values) for one in journal(store)] == [(one.params, one.values) for one in before]


def test_the_lock_of_a_writer_that_was_killed_is_not_waited_for(begun) -> None:
    go_on(begun, 1)
    _, store = begun(2)
    path = store.folder / study_log.NAME
    path.with_name(f"{path.name}.lock").symlink_to(path)  # as Optuna makes it: relative, so it leads nowhere
    assert go_on(begun, 2).complete
