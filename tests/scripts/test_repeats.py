"""What becomes of trials that are run again: `reruns.json`, `repeats:` and the page's section on them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner

from harness.cli.app import app
from harness.config.sweep_file import load
from harness.config.trials import Sweep, expand
from harness.execution import driver, repeats
from harness.execution.driver import Options
from harness.execution.rerun import rerun
from harness.records import reruns
from harness.records.reruns import Rerun
from harness.records.store import Store
from harness.records.study import of_sweep
from harness.report.sections import same_seed
from harness.stats.repeats import within_sd

SWEEP = """\
title: A shell script
command: sh train.sh {a} {seed} {out}
a: [1, 2]
seeds: 1..3
score: {stdout: "acc=([0-9.]+)"}
failed_below: 0.2
repeats: 3
"""


def run(folder: Path, script: str, **options: Any) -> tuple[Sweep, Store, list[str]]:
    (folder / "train.sh").write_text(script)
    (folder / "mine.yaml").write_text(SWEEP)
    sweep = load(folder / "mine.yaml")
    store, told = Store(folder / "results" / sweep.folder_name), []

    def show(progress: driver.Progress) -> None:
        told.extend(progress.messages)
        progress.messages.clear()

    driver.run(sweep, store, Options(in_process=True, **options), show)
    return sweep, store, told


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def analysis(sweep: Sweep, store: Store) -> Any:
    study = of_sweep(sweep, store)
    return SimpleNamespace(study=study, runs=study.runs)  # all that the section reads of an analysis


def sentences(sweep: Sweep, store: Store) -> list[str]:
    return list(same_seed.SECTION.sentences(analysis(sweep, store)))


def test_the_first_seed_of_each_cell_is_repeated_once_all_have_finished(here: Path) -> None:
    sweep, store, told = run(here, 'echo "acc=0.$1$2"', max_trials=6)
    assert reruns.load(store.folder) == ()
    assert sentences(sweep, store) == []
    sweep, store, told = run(here, 'echo "acc=0.$1$2"')
    first = [trial for trial in expand(sweep) if trial.seeds.seed == 1]
    entries = reruns.load(store.folder)
    assert sorted((entry.trial, entry.number) for entry in entries) == sorted(
        (trial.id, number) for trial in first for number in (2, 3)
    )
    assert {(entry.kind, entry.verdict, entry.score == entry.recorded_score) for entry in entries} == {
        ("repeat", "identical", True)
    }
    assert told.count(f"repeat 2 of {first[0].id}: identical") == 1
    assert (store.folder / "runs" / f"{first[1].id}.repeat3").is_dir()
    assert repeats.due(sweep, store) == []
    assert sentences(sweep, store) == [
        "Reruns of 2 trials, 4 times: 4 identical.",
        "The same seed gave the same score each time: the scores of different seeds differ by their seeds alone.",
    ]


def test_a_script_that_is_not_deterministic_is_told_from_its_seeds(here: Path) -> None:
    script = 'echo x >>n; n=$(wc -l <n); echo "acc=0.5$2$n"'  # 1 to 6, then 7 to 10 for the repeats
    sweep, store, _ = run(here, script)
    scores: dict[str, list[float]] = {}
    for entry in reruns.load(store.folder):
        assert entry.verdict == "different"
        assert entry.recorded_score is not None
        assert entry.score is not None
        scores.setdefault(entry.trial, [entry.recorded_score]).append(entry.score)
    groups = [np.array(group) for group in scores.values()]
    within = np.sqrt(np.mean([group.var(ddof=1) for group in groups]))
    (spec,) = same_seed.SECTION.tables
    table = spec.frame(analysis(sweep, store))
    assert list(table["results"]) == [3, 3]
    assert np.sqrt((table["same_seed_sd"] ** 2).mean()) == pytest.approx(within)
    first, second = sentences(sweep, store)
    assert first.startswith("Reruns of 2 trials, 4 times: 4 different (largest difference 0.0")
    assert second.startswith("The same seed does not give the same score: its results scatter with a standard dev")
    assert "from 6 results of 2 trials); the scores of different seeds in the same settings" in second


def test_a_rerun_leaves_an_entry_and_one_of_a_trial_that_is_planned_no_more_is_left_out(here: Path) -> None:
    sweep, store, _ = run(here, 'echo "acc=0.$1$2"', only=("a=1", "seed=1"))
    comparison = rerun(sweep, store, expand(sweep)[0], 1e-3)
    repeats.keep(store, comparison, "rerun")
    repeats.keep(store, comparison, "verify")
    assert [entry.kind for entry in reruns.load(store.folder)] == ["rerun", "verify"]
    reruns.add(store.folder, reruns.load(store.folder)[0].model_copy(update={"trial": "gone"}))
    assert len(of_sweep(sweep, store).reruns) == 2
    (store.folder / reruns.NAME).write_text("{")
    assert of_sweep(sweep, store).reruns == ()


def test_the_verdicts_are_counted_with_the_first_step_that_differs(here: Path) -> None:
    sweep, store, _ = run(here, 'echo "acc=0.$1$2"', only=("seed=1",))
    one = Rerun(
        trial=expand(sweep)[0].id, kind="verify", number=0, when_utc="2026-01-01T00:00:00+00:00", verdict="different",
        max_difference=0.25, first_differing_step=12, recorded_score=0.11, score=None, reasons=(),
    )  # fmt: skip
    close = one.model_copy(update={"verdict": "within_tolerance", "max_difference": 1e-4, "trial": expand(sweep)[3].id})
    for entry in (one, close):
        reruns.add(store.folder, entry)
    assert sentences(sweep, store) == [
        "Reruns of 2 trials: 1 within tolerance, 1 different (largest difference 0.250, first at step 12)."
    ]


def test_the_interval_of_a_pooled_sd_covers() -> None:
    rng, covered, means = np.random.default_rng(0), 0, []
    for _ in range(2000):
        estimate, degrees = within_sd([rng.normal(group, 0.3, size) for group, size in enumerate((3, 2, 4, 1))])
        assert degrees == 6
        covered += estimate.low < 0.3 < estimate.high
        means.append(estimate.value**2)
    assert abs(covered / 2000 - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 2000)
    assert np.mean(means) == pytest.approx(0.09, rel=0.05)
    groups = [[1.0, 1.5, 1.2], [2.0, 2.2]]
    anova = stats.f_oneway(*groups)
    between = sum(len(group) * (np.mean(group) - np.mean(np.concatenate(groups))) ** 2 for group in groups)
    assert within_sd(groups)[0].value ** 2 == pytest.approx(between / anova.statistic)
    assert np.isnan(within_sd([[1.0], []])[0].value)


def test_rerun_and_verify_say_of_a_script_what_they_compared(here: Path) -> None:
    sweep, _, _ = run(here, 'echo "acc=0.$1$2"', only=("a=1", "seed=1"))
    text = CliRunner().invoke(app, ["rerun", "mine.yaml", "--trial", expand(sweep)[0].id]).output
    assert "identical: the score, bit for bit." in text
    assert "steps" not in text
    text = CliRunner().invoke(app, ["verify", "mine.yaml", "--retrain", "1", "--seed", "1"]).output
    assert "problem:" not in text
    assert "Retrained 1 (--seed 1): 1 identical, 0 within tolerance, 0 different." in " ".join(text.split())
