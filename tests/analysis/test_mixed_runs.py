"""What made a study's runs is compared over its cells, and with what would train the rest."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from made_runs import ENVIRONMENT, HEAD, Run, store_of, sweep_of

from harness.analysis import mixed_runs
from harness.config.trials import Sweep, expand
from harness.execution import driver, resume
from harness.execution.options import Options
from harness.execution.progress import Progress
from harness.execution.verification import verify
from harness.records.record import Environment
from harness.records.store import Store
from harness.records.study import of_sweep
from harness.report.page import write

Fields = dict[str, object]


def folder_of(folder: Path, of_cell: Callable[[int, int], Fields]) -> tuple[Sweep, Store]:
    """Two cells of five finished runs, whose environments differ in what is given of a cell and a seed."""
    sweep = sweep_of(folder, f"{HEAD}lr: [1e-5, 2e-5]\nepochs: 3\nseeds: 1..5\n")
    store = store_of(folder, sweep, {cell: [Run(300)] * 5 for cell in range(2)})
    for trial in expand(sweep):
        path = store.path(trial.id)
        record = json.loads(path.read_text())
        record["environment"] |= of_cell(trial.cell, trial.seeds.seed)
        path.write_text(json.dumps(record))
    return sweep, store


def warnings(sweep: Sweep, store: Store) -> list[str]:
    return list(mixed_runs.warnings(of_sweep(sweep, store)))


def test_a_version_that_follows_the_cells_is_said_at_the_top_of_the_page_and_by_verify(tmp_path: Path) -> None:
    sweep, store = folder_of(tmp_path, lambda cell, seed: {"torch": "2.1.0", "threads": 4} if cell else {})
    (sentence,) = warnings(sweep, store)
    assert sentence == (
        "Confounded with CPU threads and torch: CPU threads 1, torch 2.13.0 made 5 of 5 finished runs of lr 1e-5, and "
        "CPU threads 4, torch 2.1.0 made 5 of 5 finished runs of lr 2e-5. A difference between these cells may come "
        "from that rather than from their settings: train them alike before comparing them."
    )
    page = write(of_sweep(sweep, store), tmp_path / "report").page
    html = page.read_text()
    assert html.index('class="verdict"') < html.index("Confounded with") < html.index('class="cards"')
    assert "Confounded with CPU threads and torch" in (page.parent / "report.md").read_text().partition("##")[0]
    notes = [note.found for note in verify.check(sweep, store).notes if note.rule == "mixed runs"]
    assert [note[:44] for note in notes] == [sentence[:44]]


def test_a_mixture_within_cells_is_verifys_to_say(tmp_path: Path) -> None:
    sweep, store = folder_of(tmp_path, lambda cell, seed: {"commit": "4567def"} if seed < 3 else {})
    assert warnings(sweep, store) == []
    (note,) = [note.found for note in verify.check(sweep, store).notes if note.rule == "mixed runs"]
    assert note == "mixed within cells: 6 runs with code 0123abc, 4 with code 4567def"


@pytest.mark.parametrize(
    ("few", "said"),
    [(4, True), (3, False)],
)
def test_four_of_five_runs_of_a_cell_follow_it_and_three_do_not(tmp_path: Path, few: int, said: bool) -> None:
    sweep, store = folder_of(tmp_path, lambda cell, seed: {"device_name": "another"} if cell and seed <= few else {})
    assert bool(warnings(sweep, store)) == said


@pytest.mark.parametrize(
    "of_cell",
    [
        lambda cell, seed: {},
        lambda cell, seed: {"kernels": "AVX2"} if cell else {},  # early records don't say: not known is no other kind
        lambda cell, seed: {"matmul_precision": ("highest", "high")[cell]},  # the recipe's own
        lambda cell, seed: {"device": f"cuda:{seed % 2}"},  # cards of one kind
    ],
)
def test_what_is_alike_not_known_or_a_setting_is_no_mixture(
    tmp_path: Path, of_cell: Callable[[int, int], Fields]
) -> None:
    sweep, store = folder_of(tmp_path, of_cell)
    assert mixed_runs.of_study(of_sweep(sweep, store)) == ()


def test_what_is_not_known_of_a_run_hides_no_mixture_of_the_others(tmp_path: Path) -> None:
    kinds: list[Fields] = [{"kernels": "AVX2"}, {"kernels": "AVX512"}]
    sweep, store = folder_of(tmp_path / "cells", lambda cell, seed: {} if seed == 1 else kinds[cell])
    (sentence,) = warnings(sweep, store)
    assert sentence.startswith("Confounded with CPU kernels: ")
    assert "CPU kernels AVX2 made 4 of 5 finished runs of lr 1e-5, and CPU kernels AVX512 made 4 of 5" in sentence
    sweep, store = folder_of(tmp_path / "few", lambda cell, seed: kinds[cell] if seed == 1 else {})
    assert warnings(sweep, store) == []  # one run of five says nothing of a cell
    assert [mixture.words for mixture in mixed_runs.of_study(of_sweep(sweep, store))] == [
        "1 run with CPU kernels AVX2, 1 with CPU kernels AVX512"
    ]


def environments() -> Iterator[Environment]:
    yield ENVIRONMENT
    yield ENVIRONMENT.model_copy(update={"torch": "2.13.0+cpu", "kernel_settings": "none"})


@pytest.mark.parametrize("environment", [*environments()])
def test_a_resumed_sweep_says_once_what_made_its_records(tmp_path: Path, environment: Environment) -> None:
    sweep, store = folder_of(tmp_path, lambda cell, seed: environment.model_dump())
    records = list(store.records(sweep).values())
    now = mixed_runs.surroundings(environment)
    assert mixed_runs.resumed(records, now) is None
    assert mixed_runs.resumed(records, {"torch": "2.13.0+cpu", "driver": "580.1"}) is None
    assert mixed_runs.resumed(records, now | {"torch": "2.14.0", "code": "4567def"}) == (
        f"10 of 10 records were trained with torch {environment.torch} (now 2.14.0), other code 0123abc (now 4567def); "
        "going on mixes them"
    ).replace(" (now 2.14.0), other", " (now 2.14.0) and other")


def test_what_made_some_of_the_records_alone_is_not_told_of_all(tmp_path: Path) -> None:
    sweep, store = folder_of(tmp_path, lambda cell, seed: {"torch": "2.1.0"} if seed == 1 else {})
    records = list(store.records(sweep).values())
    now = mixed_runs.surroundings(ENVIRONMENT)
    assert mixed_runs.resumed(records, now | {"code": "4567def"}) == (
        "10 of 10 records were trained with torch 2.1.0 (2 records; now 2.13.0) and other code 0123abc (now 4567def); "
        "going on mixes them"
    )


def test_what_a_worker_alone_knows_is_said_once_its_first_pack_is_back(tiny_sweep: Sweep, tmp_path: Path) -> None:
    store, said = Store(tmp_path / "tiny"), list[str]()

    def listen(progress: Progress) -> None:
        said.extend(progress.messages)
        progress.messages.clear()

    driver.run(tiny_sweep, store, Options(in_process=True, max_trials=2), listen)
    assert not any("mixes" in message for message in said)
    for trial in expand(tiny_sweep)[::3]:
        path = store.path(trial.id)
        record = json.loads(path.read_text())
        record["environment"]["kernels"] = "of another kind"
        path.write_text(json.dumps(record))
    driver.run(tiny_sweep, store, Options(in_process=True, pack=1), listen)
    (sentence,) = [message for message in said if "mixes" in message]
    assert sentence.startswith("2 of 2 records were trained with CPU kernels of another kind (now ")


def test_what_would_train_now_is_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    sweep, store = folder_of(tmp_path, lambda cell, seed: {"kernel_settings": "none"} if seed == 1 else {})
    records = store.records(sweep).values()
    sentence = resume.mixing(records, Options())
    assert sentence is not None
    assert sentence.startswith("10 of 10 records were trained with device name one core (now ")
    assert "settings of the kernels none (2 records; now MKL_CBWR=COMPATIBLE)" in sentence
    elsewhere = resume.mixing(records, Options(address="auto"))
    assert elsewhere is not None
    assert "device name" not in elsewhere
    assert resume.mixing([], Options()) is None
