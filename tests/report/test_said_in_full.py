"""What must stand beside a number: where runs fail, which recipe is cheapest, what is left out, where a scale ends."""

from pathlib import Path

import numpy as np
import pytest
from made_runs import HEAD, Run, import_of, imported_runs, study_of
from said_of_studies import ARMS, everything

from harness.analysis import score_scale, spread_and_level
from harness.analysis.analyze import Analysis, analyse
from harness.common import metrics
from harness.report import next_experiment, opening
from harness.report.sections import best, failures, level, seed_budget
from harness.stats import seed_budget as budgets

RATES = HEAD + "lr: [5e-4, 1e-3, 1e-2]\nbias_correction: [off, on]\nepochs: 3\nseeds: 1..{}\n"
FAILED = Run(200, 0.69)


def good(n: int, at: int = 320) -> list[Run]:
    return [Run(at + 3 * (i % 5)) for i in range(n)]


def failing_from_1e_3_up(folder: Path) -> Analysis:
    cells = {0: good(8), 1: good(8), 2: [*good(3), *[FAILED] * 5], 3: good(8), 4: [FAILED] * 8, 5: good(8)}
    return analyse(study_of(folder, RATES.format(8), cells))


def test_rates_of_an_arm_say_where_its_failures_are(tmp_path: Path) -> None:
    (rates,) = opening.rates(failing_from_1e_3_up(tmp_path))
    assert rates.startswith("Failure rate by lr: 5e-4: 0 of 16 (0 % [0, 19]); 1e-3: 5 of 16 (31 % [14, 56]), all with ")
    assert rates.count("all with bias correction off") == 2


def test_a_value_is_spelt_alike_in_sentences_and_tables(tmp_path: Path) -> None:
    analysis = failing_from_1e_3_up(tmp_path)
    spelt = "\n".join(everything(analysis))
    table = failures.SECTION.tables[2]
    rows = analysis.contrasts.to_dict("records")
    cells = [label(row) for _, label in table.labels(analysis) for row in rows]
    assert "lr 0.01" in spelt
    assert "1e-2" not in spelt + str(cells)


def test_the_cheapest_of_several_recipes_is_named(tmp_path: Path) -> None:
    study = study_of(
        tmp_path, ARMS.replace("epochs: 3", "epochs: [3, 10, 20]").format(5), {i: good(5) for i in range(6)}
    )
    study.runs["lane_seconds"] = study.runs["epochs"].astype(float) * np.where(study.runs["seed"] == 1, 9.0, 4.0)
    analysis = analyse(study)
    table = analysis.best_set
    assert table["run_seconds"].tolist() == [12, 40, 80] * 2
    table["recommended"] = True
    table.loc[5, "maybe_best_mean"] = table.loc[5, "recommended"] = False
    (told,) = best.recommendation(analysis)
    assert "any of these 5 (of 6), which cannot be distinguished" in told
    assert told.endswith(
        " The cheapest of them to train: bias correction off, epochs 3; bias correction on, epochs 3 (12 s per run; "
        "the slowest 80 s)."
    )
    table["run_seconds"] = np.linspace(12, 16, 6)  # what a busy machine makes of one training time
    assert "cheapest" not in best.recommendation(analysis)[0]


def test_three_runs_a_side_show_no_difference_and_none_is_claimed(tmp_path: Path) -> None:
    """χ² says p = 0.025, the exact test of 3 and 3 runs can give no less than 0.1."""
    analysis = analyse(study_of(tmp_path, ARMS.format(3), {0: [FAILED] * 3, 1: good(3)}))
    assert analysis.contrasts["p_least"].tolist() == pytest.approx([0.1])
    assert any("too few runs to compare" in text.lower() for text in opening.all_else_equal(analysis))
    assert not any("changes the failure rate" in text for text in everything(analysis))


def test_one_reference_run_has_no_effect_size(tmp_path: Path) -> None:
    row = analyse(study_of(tmp_path, ARMS.format(5), {0: good(1), 1: good(5)})).pair_levels.iloc[0]
    assert np.isnan(row["ok_effect"])


def test_pairs_that_no_test_compares_are_counted(tmp_path: Path) -> None:
    """The pairs that differ most, all runs against none, have no mean of successful runs on one side."""
    text = HEAD + "bias_correction: [off, on]\nlr: [5e-4, 1e-3, 1e-2]\nepochs: 3\nseeds: 1..4\n"
    cells = {0: good(4), 1: [FAILED] * 4, 2: [FAILED] * 4, 3: good(4, 330), 4: good(4), 5: good(4)}
    analysis = analyse(study_of(tmp_path, text, cells))
    (pairs, *_) = level.sentences(analysis)
    assert "Of 1 pair of cells" in pairs
    assert "; 2 more, where a side has fewer than two successful runs or no score differs, cannot be tested" in pairs
    told = " ".join(seed_budget.sentences(analysis))
    assert "too few runs to say" not in told


def test_the_seeds_of_the_next_sweep_have_a_range(tmp_path: Path) -> None:
    analysis = analyse(study_of(tmp_path, ARMS.format(8), {0: [*good(5), *[FAILED] * 3], 1: good(8)}))
    proposed = next_experiment.next_sweep(analysis)
    assert proposed is not None
    few, many = budgets.seeds_to_halve(3, 8)
    assert few is not None
    assert many is not None
    assert few < 99 < many
    assert "99 seeds per cell distinguish a failure rate of 38 % from half of that" in proposed[0]
    assert proposed[0].endswith(
        f" At other rates that these runs leave possible it takes {few} to {many} (10th to 90th percentile)."
    )


def test_seeds_to_halve_a_rate_are_those_at_its_likely_ends() -> None:
    rng = np.random.default_rng(1)
    possible = rng.beta(3.5, 5.5, 200_000)
    for share, seeds in zip((0.9, 0.1), budgets.seeds_to_halve(3, 8), strict=True):
        rate = float(np.quantile(possible, share))
        assert seeds == pytest.approx(budgets.seeds_for_failure(rate, 1, rate / 2, 1), rel=0.03)


def test_intervals_of_scores_end_where_the_metric_does(tmp_path: Path) -> None:
    analysis = analyse(study_of(tmp_path, ARMS.format(2), {0: [Run(240), Run(390)], 1: [Run(398), Run(300)]}))
    table = spread_and_level.level(analysis.study)
    for name in ("mean", "ok_mean"):
        assert (table[f"{name}_high"] == 1).all()
        assert (table[f"{name}_low"] >= 0).all()
    assert (
        spread_and_level.pair_levels(analysis.study)[["difference_low", "difference_high"]].abs().le(1).all(axis=None)
    )


def test_the_scale_is_the_metrics_unless_scores_say_otherwise(tmp_path: Path) -> None:
    cells = [(("lr", 1e-5),)]
    for number, (scores, ends) in enumerate(
        [([0.5, 0.9], (0, 1)), ([50.0, 90.0], (0, 100)), ([-0.2, 0.9], (-np.inf, np.inf))]
    ):
        study = import_of(tmp_path / str(number), cells, imported_runs(scores), metric="accuracy")
        assert score_scale.ends_of_scale(study) == ends
    assert metrics.scale("squad_f1") == (0, 1)
    assert metrics.scale("loss") == metrics.scale("eval_loss") == (0, np.inf)
    assert metrics.scale("my_file:gain") == (-np.inf, np.inf)
    assert metrics.scale("neg_log_loss") == (-np.inf, 0)
