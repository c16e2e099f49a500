"""The tables of a diagnosis, on made-up runs whose fate is known."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from diagnosed_runs import FINE, GONE, RUNS, TEXT
from made_runs import HEAD, Run, study_of
from scipy import stats

from harness.analysis import diagnosis, verdicts
from harness.config.recipe import ModelSpec, Recipe, TaskSpec


def diagnosed(folder: Path, runs: Mapping[int, list[Run | None]] = RUNS, text: str = TEXT) -> diagnosis.Diagnosis:
    study = study_of(folder, text, runs)
    return diagnosis.diagnose(study, verdicts.runs(study))


def test_kinds_of_runs(tmp_path: Path) -> None:
    found = diagnosed(tmp_path)
    table = found.kinds.set_index("cell")
    assert table["finished"].tolist() == [4, 4, 4, 2]
    assert table["ok"].tolist() == [2, 4, 0, 2]
    assert table["not_optimised"].tolist() == [2, 0, 2, 0]
    assert table["not_generalised"].tolist() == [0, 0, 1, 0]
    assert table["diverged"].tolist() == [0, 0, 1, 0]
    assert table["failed_recorded"].tolist() == [2, 0, 4, 0]
    assert (found.finished, found.recorded) == (14, 14)
    counted = table[["ok", "near_chance", "not_optimised", "not_generalised", "diverged", "not_told"]].sum(axis=1)
    assert counted.tolist() == table["finished"].tolist()


def test_a_regression_cannot_be_told_by_entropy(tmp_path: Path) -> None:
    runs = {0: [Run(score=0.0), Run(score=0.5)]}
    study = study_of(tmp_path, HEAD + "lr: 1e-5\nepochs: 1\nseeds: 1..2\n", runs, metric="pearson")
    found = diagnosis.diagnose(study, verdicts.runs(study))
    assert found.kinds[["not_told", "ok"]].to_numpy().tolist() == [[1, 1]]


def test_vanished_gradients_from_when_and_in_how_many_layers(tmp_path: Path) -> None:
    found = diagnosed(tmp_path)
    gone = found.fates["vanished"].dropna()
    assert gone.index.tolist() == [1, 2, 8, 9]  # not the one that fits, nor the one that diverged
    # 100 updates, gradients fall with the 51st: the first of the hundred places at which they are low is 51.
    assert set(gone) == {51.0}
    assert set(found.fates.loc[gone.index, "vanished_layers"]) == {2.0}
    assert found.kinds["vanished"].tolist() == [2, 0, 2, 0]


def test_a_gradient_that_comes_back_has_not_vanished(tmp_path: Path) -> None:
    back = Run(200, loss=0.69, gradients=(1e-4, 1.0))
    found = diagnosed(tmp_path, {0: [FINE, back, FINE, FINE]})
    assert found.fates["vanished"].isna().all()


def test_without_runs_that_learn_nothing_is_held_against_them(tmp_path: Path) -> None:
    found = diagnosed(tmp_path, {0: [GONE, GONE]})
    assert found.fates["vanished"].isna().all()
    assert found.gradients.empty
    assert found.rule is None


def test_gradients_are_compared_in_cells_with_both_outcomes(tmp_path: Path) -> None:
    found = diagnosed(tmp_path)
    assert found.both
    assert found.compared == (0, 1, 2, 3)
    table = found.gradients.set_index("part")
    assert table.loc["1 attention", ["lost", "others"]].tolist() == [2, 2]
    assert table.loc["1 attention", "orders"] == pytest.approx(4, abs=1e-4)
    assert table.loc["1 attention", "at"] == 0.51
    assert table.loc["head", ["orders", "end_orders"]].tolist() == pytest.approx([0, 0], abs=1e-6)
    alone = diagnosed(tmp_path / "alone", {0: [FINE, FINE], 2: [GONE, GONE]})
    assert not alone.both
    assert alone.compared == (0, 1, 8, 9)


def test_a_layer_is_attention_and_feed_forward_together(tmp_path: Path) -> None:
    norms = diagnosed(tmp_path).norms
    assert norms is not None
    assert norms.layers == ["1", "2"]
    np.testing.assert_allclose(10 ** norms.layer("1")[0], math.sqrt(2), rtol=1e-6)
    np.testing.assert_allclose(10 ** norms.layer("embeddings")[0], 1, rtol=1e-6)


def test_sizes_by_hand() -> None:
    def recipe(**fields: object) -> Recipe:
        given = {"task": TaskSpec(name="rte"), "model": ModelSpec(name="m"), "lr": 1e-5, "epochs": 1}
        return Recipe.model_validate(given | fields)

    flat = recipe(schedule="constant", warmup_ratio=0.0, bias_correction=False)
    sizes = diagnosis.effective_sizes(flat, 100)
    t = np.arange(1, 101)
    np.testing.assert_allclose(sizes, (1 - 0.9**t) / np.sqrt(1 - 0.999**t))
    assert int(np.argmax(sizes)) + 1 == 12
    assert sizes.max() == pytest.approx(6.5686, abs=1e-4)  # Mosbach et al. (2021): 6.56
    assert sizes[99] == pytest.approx(3.2, abs=0.05)  # still, at step 100
    np.testing.assert_allclose(diagnosis.correction_factors(flat, 100), 1 / sizes)
    on = diagnosis.effective_sizes(recipe(), 100)
    assert on.max() == 1
    assert on[0] == 0
    assert int(np.argmax(on)) == 10  # the end of the warm-up


def test_the_largest_update_of_each_recipe(tmp_path: Path) -> None:
    table = diagnosed(tmp_path).step_sizes.set_index("cell")
    assert table["correction"].tolist() == [False, True, False, True]
    assert table.loc[1, ["largest", "at", "updates"]].tolist() == [1, 11, 100]
    assert table.loc[0, "largest"] == pytest.approx(6.565, abs=0.01)  # at update 11, where the warm-up ends
    assert table.loc[0, "largest_rate"] == pytest.approx(table.loc[0, "largest"] * 1e-5)


def test_clipped_updates_are_counted_in_recorded_runs(tmp_path: Path) -> None:
    """The made-up gradient norm falls evenly from 0.7 to the final loss: above 0.5 in half of the updates to 0.3."""
    text = TEXT.replace("epochs: 5", "epochs: 5\nmax_grad_norm: 0.5")
    table = diagnosed(tmp_path, {0: [FINE, FINE], 1: [FINE, Run(300)]}, text).step_sizes.set_index("cell")
    assert table.loc[0, "clipped"] == table.loc[1, "clipped"] == pytest.approx(0.5)
    unlimited = diagnosed(tmp_path / "none", {0: [FINE]}, TEXT.replace("epochs: 5", "epochs: 5\nmax_grad_norm: null"))
    assert unlimited.step_sizes["clipped"].isna().all()


def test_stopping_by_the_rule(tmp_path: Path) -> None:
    """Every lost run is told from the first look on, so what stopping changes can be counted by hand."""
    mild = Run(210, loss=0.3, gradients=(1.0, 1.0))
    runs = {0: [FINE, GONE, GONE, mild], 1: [FINE, FINE, GONE, FINE], 2: [GONE, GONE, GONE, GONE], 3: [FINE] * 4}
    found = diagnosed(tmp_path, runs)
    assert found.rule is not None
    assert (found.rule.caught, found.rule.false) == (7, 0)
    table = found.stopping.set_index("cell")
    assert table["stopped"].tolist() == [2, 1, 4, 0]
    assert table["wrongly"].sum() == 0
    assert table["failed_after"].tolist() == table["failed"].tolist() == [2, 1, 4, 0]
    assert table.loc[0, "mean"] == pytest.approx((300 + 200 + 200 + 210) / 1600)
    assert table.loc[0, "mean_after"] == pytest.approx((300 + 210) / 800)
    assert math.isnan(table.loc[2, "mean_after"])
    assert table.loc[0, "saved"] == pytest.approx(0.5 * (1 - found.rule.rule.share))
    assert table.loc[2, "saved"] == pytest.approx(1 - found.rule.rule.share)


def test_early_warning_counts_every_recorded_run(tmp_path: Path) -> None:
    table = diagnosed(tmp_path).early_warning
    ratio = table[table["signal"] == "update ratio"]
    assert set(ratio["lost"]) == {6}
    assert set(ratio["others"]) == {8}
    assert ratio["share"].tolist() == pytest.approx([n / 40 for n in range(1, 41)])


def test_shared_seeds_against_spearman_and_every_permutation(tmp_path: Path) -> None:
    counts = {0: [250, 260, 280, 290], 1: [260, 255, 285, 300], 3: [251, 290, 270, 300]}
    found = diagnosed(tmp_path, {cell: [Run(n) for n in of] for cell, of in counts.items()})
    row = found.shared_seeds.set_index("of").loc["score"]
    pairs = [(0, 1), (0, 3), (1, 3)]
    mean = np.mean([stats.spearmanr(counts[a], counts[b]).statistic for a, b in pairs])
    assert row["correlation"] == pytest.approx(mean)
    assert (row["cells"], row["seeds"]) == (3, 4)
    # Every arrangement of two rows against the first.
    from itertools import permutations

    def correlation(rows: list[tuple[int, ...]]) -> float:
        return float(np.mean([stats.spearmanr(rows[a], rows[b]).statistic for a, b in ((0, 1), (0, 2), (1, 2))]))

    orders = list(permutations(range(4)))
    ranks = [tuple(np.argsort(np.argsort(counts[cell]))) for cell in (0, 1, 3)]
    seen = [
        correlation([ranks[0], tuple(ranks[1][i] for i in a), tuple(ranks[2][i] for i in b)])
        for a in orders
        for b in orders
    ]
    exact = np.mean(np.array(seen) >= correlation(ranks) - 1e-9)  # type: ignore[arg-type]
    assert row["p"] == pytest.approx(exact, abs=0.03)
    assert math.isnan(found.shared_seeds.set_index("of").loc["failing", "correlation"])  # none fails


def test_seeds_that_fail_everywhere_are_seen(tmp_path: Path) -> None:
    bad, good = Run(200), Run(300)
    runs = {cell: [bad, bad, good, good] for cell in range(4)}
    row = diagnosed(tmp_path, runs).shared_seeds.set_index("of").loc["failing"]
    assert row["correlation"] == pytest.approx(1)
    assert row["p"] < 0.01


def test_a_diverged_run_is_the_worst_of_its_cell(tmp_path: Path) -> None:
    runs = {0: [Run(diverged=True), Run(250), Run(300), Run(310)], 1: [Run(210), Run(250), Run(300), Run(310)]}
    row = diagnosed(tmp_path, runs).shared_seeds.set_index("of").loc["score"]
    assert row["correlation"] == pytest.approx(1)


def test_without_recordings_the_rest_is_told(tmp_path: Path) -> None:
    runs = {0: [Run(300), Run(200, loss=0.69)], 1: [Run(300), Run(300)]}
    found = diagnosed(tmp_path, runs)
    assert (found.finished, found.recorded) == (4, 0)
    assert found.kinds["not_optimised"].tolist() == [1, 0, 0, 0]
    assert found.norms is None
    assert found.early_warning.empty
    assert len(found.step_sizes) == 2


def test_nothing_finished(tmp_path: Path) -> None:
    found = diagnosed(tmp_path, {})
    assert (found.finished, found.recorded) == (0, 0)
    assert all(isinstance(table, pd.DataFrame) for table in found.tables.values())


def test_the_order_of_the_records_decides_nothing(tmp_path: Path) -> None:
    one = study_of(tmp_path / "one", TEXT, RUNS)
    other = study_of(tmp_path / "other", TEXT, RUNS, backwards=True)
    for name, table in diagnosis.diagnose(one, verdicts.runs(one)).tables.items():
        pd.testing.assert_frame_equal(table, diagnosis.diagnose(other, verdicts.runs(other)).tables[name])
