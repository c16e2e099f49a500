"""A search over a language model's loss: the lowest is the best, to the sampler, the pruner and the fresh seeds."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import optuna
import pytest
from driving import quiet
from language_models import rows, write_decoder, write_rows
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from searches import journal, scored

from harness.analysis import search_ranking
from harness.common.metrics import Evaluation
from harness.config.sweep_file import load
from harness.config.trials import Trial
from harness.execution import in_process
from harness.execution.driver import Options
from harness.records.store import Store
from harness.records.study import of_sweep
from harness.report import search_page
from harness.report.figures.search import search_history
from harness.search import search

HERE = Options(in_process=True)
UNTOUCHED = 2.0
pytestmark = pytest.mark.usefixtures("cpu_only")
Curve = Callable[[Trial], Sequence[float]]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    folder = tmp_path_factory.mktemp("losses")
    model = write_decoder(folder / "gpt2", "gpt2")
    train, dev = write_rows(folder / "train.jsonl", rows(24, 1)), write_rows(folder / "dev.jsonl", rows(10, 2))
    files = {"train": str(train), "validation": str(dev)}
    task = {"name": "answers", "kind": "completion", "files": files, "allow_unknown": True}
    return {"task": task, "model": model.model_dump()}


@pytest.fixture
def write(tmp_path: Path, inputs: dict[str, object]) -> Callable[..., Path]:
    """Write a search over rates of LoRA on a small decoder."""

    def make(more: str, space: str, metric: str = "loss") -> Path:
        path = tmp_path / "find.yaml"
        task = json.dumps({**inputs["task"], "metric": metric})  # type: ignore[dict-item]
        path.write_text(
            f"task: {task}\nmodel: {json.dumps(inputs['model'])}\nmethod: lora\nmax_length: 32\nepochs: 10\n"
            f"batch_size: 4\nseeds: 1..2\nsearch: {{space: {space}, {more}}}\n"
        )
        return path

    return make


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Callable[[Curve], None]:
    """Have packs 'trained' along made curves of ten dev losses; one at 2.0, the untouched model's, failed."""

    def use(curve: Curve) -> None:
        def train_pack(name, profile, trials: Sequence[Trial], place, progress, signals, evaluated) -> list[object]:
            curves = [curve(trial) for trial in trials]
            for number, losses in enumerate(zip(*curves, strict=True), 1):
                if place.tells_scores:
                    values = np.array(losses)
                    evaluated(Evaluation(number / 10, values, values < UNTOUCHED, number == 10))
                progress(number, 10)
            return [(scored(name, profile, one, end[-1]), None) for one, end in zip(trials, curves, strict=True)]

        monkeypatch.setattr(in_process, "train_pack", train_pack)

    return use


def valley(trial: Trial) -> Sequence[float]:
    """Lowest at a rate of 1e-3; the seeds of confirmation say otherwise of the best."""
    luck = 0.3 if trial.seeds.seed > 100 and trial.recipe.lr == 1e-3 else 0.01 * trial.seeds.seed
    return [UNTOUCHED, *[0.5 + abs(math.log10(trial.recipe.lr) + 3) + luck % 1] * 9]


@pytest.mark.parametrize("metric", ["loss", "perplexity"])
def test_the_lowest_is_the_best_and_fresh_seeds_are_of_the_lowest(write, made, tmp_path: Path, metric: str) -> None:
    made(valley)
    grid = "{lr: [1e-5, 1e-4, 1e-3, 3e-3, 1e-1]}"
    sweep = load(write("sampler: grid, confirm: {best: 2, seeds: 101..102}", grid, metric))
    assert sweep.search is not None
    assert sweep.search.lower_is_better
    store = Store(tmp_path / "results" / "find")
    ended = search.run(sweep, store, HERE, quiet)
    assert ended.complete
    ranked = search_ranking.table(ended.sweep, store, search_ranking.confirmed_before(ended.sweep, store))
    assert ranked["lr"].tolist() == [1e-3, 3e-3, 1e-4, 1e-1, 1e-5]  # the last: a loss above the untouched model's
    assert ranked["failed"].tolist() == [0, 0, 0, 2, 2]
    assert ended.confirmed is not None
    assert [dict(cell.axes)["lr"] for cell in ended.confirmed.cells] == [1e-3, 3e-3]
    assert ranked["too_high"].iloc[0] == pytest.approx(0.8 - 0.515)  # on fresh seeds its loss is the higher
    storage = JournalStorage(JournalFileBackend(str(store.folder / "study.log")))
    assert optuna.load_study(study_name=sweep.folder_name, storage=storage).best_value == pytest.approx(0.515)
    said = " ".join(search_page.write_report(ended.sweep, store).said)
    assert "The best of the search is lr 1e-3: mean 0.515" in said
    assert "the search had it too good by 0.285" in said
    figure = search_history(of_sweep(ended.sweep, store), ranked, [np.empty(0)] * 5)
    (steps,) = (line.get_ydata() for axes in figure.axes for line in axes.lines if line.get_drawstyle() != "default")
    assert (np.diff(np.asarray(steps, dtype=float)) <= 0).all()  # best so far


def test_a_model_based_search_goes_down(write, made, tmp_path: Path) -> None:
    made(valley)
    sweep, store = load(write("recipes: 16", "{lr: {low: 1e-6, high: 1, log: on}}")), Store(tmp_path / "find")
    ended = search.run(sweep, store, HERE, quiet)
    far = [abs(math.log10(cell.recipe.lr) + 3) for cell in ended.sweep.cells if cell.recipe]  # type: ignore[union-attr]
    assert np.mean(far[10:]) < np.mean(far[:10])
    best = ended.sweep.cells[search_ranking.best_first(search_ranking.by_cell(ended.sweep, store), sweep.search)[0]]
    assert abs(math.log10(best.recipe.lr) + 3) == min(far)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "pruner",
    [
        "median",
        "{name: percentile, percentile: 60}",
        "{name: patient, patience: 20}",
        "{name: successive_halving, n_warmup_steps: 20, reduction_factor: 2}",
        "{name: hyperband, n_warmup_steps: 20}",
    ],
)
def test_every_pruner_stops_the_highest_losses(write, made, tmp_path: Path, pruner: str) -> None:
    """Losses that end at 0.5 to 0.9 in their order, then three that rise; the lowest of all comes last."""
    grid = "{lr: [1, 2, 3, 4, 5, 6, 7, 8, 9]}"
    sweep, store = load(write(f"sampler: grid, pruner: {pruner}", grid)), Store(tmp_path / "find")
    order: list[float] = []

    def curve(trial: Trial) -> Sequence[float]:
        if trial.recipe.lr not in order:
            order.append(trial.recipe.lr)
        which = order.index(trial.recipe.lr)
        if which == 8:
            return [1.5 - 0.14 * step for step in range(10)]
        return [1.5 - 0.1 * step + 0.2 * step * (which >= 5) + 0.02 * which for step in range(10)]

    made(curve)
    ended = search.run(sweep, store, HERE, quiet)
    assert ended.complete
    states = [trial.state.name for trial in journal(store)]
    assert states[0] == "COMPLETE"
    assert "PRUNED" in states[5:8]
    assert states[8] == "COMPLETE"
    assert search_ranking.best_first(search_ranking.by_cell(ended.sweep, store), ended.sweep.search)[0] == 8
    stopped = search.stopped(ended.sweep, store)
    assert {one.recipe for one in stopped} <= {f"lr {order[which]:g}" for which in range(1, 8)}
