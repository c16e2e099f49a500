import math
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from harness.analysis import published
from harness.analysis.published import COLUMNS, NUMBERS, Own, compare, compare_study
from harness.config.sweep_file import load

TABLE = Path(__file__).parents[3] / "shared" / "MOSBACH.md"
SWEEPS = Path(__file__).parents[2] / "sweeps"
USUAL = {"lr": 2e-5, "epochs": 3, "bias_correction": False}
RECOMMENDED = {"lr": 2e-5, "epochs": 20}
NO_SCORES = np.array([])


def number(recipe: str, version: str, task: str = "rte") -> published.Published:
    (found,) = (row for row in NUMBERS if (row.recipe, row.version, row.task) == (recipe, version, task))
    return found


def scores(mean: float, sd: float, runs: int = 25) -> np.ndarray:
    """Fractions with exactly this mean and sd, given in percent."""
    drawn = np.random.default_rng(1).normal(size=runs)
    return (mean + sd * (drawn - drawn.mean()) / drawn.std(ddof=1)) / 100


def own(recipe=None, final=None, best=None, **fields) -> Own:
    given = {"cell": 0, "task": "rte", "model": "bert-large-uncased", "recipe": recipe or USUAL}
    final = scores(52.3, 7.2) if final is None else final
    return Own(**(given | {"final": final, "best": final if best is None else best} | fields))


def against(cell: Own, recipe: str, version: str, stand_in: str | None = None) -> published.PublishedComparison:
    (found,) = (
        one for one in compare(cell, stand_in) if (one.published.recipe, one.published.version) == (recipe, version)
    )
    return found


# -------------------------------------------------------------------------------------------------------- the numbers


@pytest.mark.skipif(not TABLE.exists(), reason="the notes on the paper lie beside the checkout")
def test_every_number_is_that_of_the_notes():
    section = TABLE.read_text().split("## Numbers to compare with", 1)[1].split("\n## ", 1)[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("|")
    ]
    expected = {}
    for recipe, *by_task, version in rows[2:]:
        for task, numbers in zip(("rte", "mrpc", "cola"), by_task, strict=True):
            sd, mean, maximum = map(float, numbers.split("/"))
            status = "unchecked" if "[unchecked]" in version else "read"
            checkpoint = "best" if "best dev checkpoint" in version else "final"
            expected[recipe, version.split()[0], task] = (sd, mean, maximum, status, checkpoint)
    found = {
        (row.recipe, row.version, row.task): (row.sd, row.mean, row.maximum, row.status, row.checkpoint)
        for row in NUMBERS
    }
    assert found == expected
    assert len(NUMBERS) == len(expected) == 15
    runs = re.match(r" \((\d+) seeds a cell\)", section)
    assert runs
    assert {row.runs for row in NUMBERS} == {int(runs[1])}


def test_only_the_recommended_recipe_of_v1_keeps_the_best_checkpoint():
    assert {(row.recipe, row.version) for row in NUMBERS if row.checkpoint == "best"} == {("recommended", "v1")}
    assert all("best dev checkpoint kept" in row.note for row in NUMBERS if row.checkpoint == "best")
    assert all("end of training" in row.note for row in NUMBERS if row.checkpoint == "final")


@pytest.mark.parametrize(
    "values", [(52.3, 7.2, 25, 50.0, 1.0, 8), (0.7, 0.01, 2, 0.6, 0.2, 3), (1, 1e-200, 9, 2, 0, 4)]
)
def test_welch_is_scipys(values):
    gap, low, high = published.welch(*values)
    mean, sd, runs, other_mean, other_sd, other_runs = values
    if sd > 1e-100:
        found = stats.ttest_ind_from_stats(mean, sd, runs, other_mean, other_sd, other_runs, equal_var=False)
        assert gap == pytest.approx(mean - other_mean)
        error = gap / found.statistic
        # The interval is that of the test: at its end the p-value is 5 %.
        for bound in (low, high):
            end = stats.ttest_ind_from_stats(mean - bound, sd, runs, other_mean, other_sd, other_runs, equal_var=False)
            assert end.pvalue == pytest.approx(0.05, abs=1e-9)
        assert (high - low) / 2 > 1.9 * abs(error)
    else:
        assert low == pytest.approx(gap)
        assert high == pytest.approx(gap)


def test_welch_from_samples_has_scipys_interval():
    one, other = scores(60, 5, 9), scores(55, 2, 25)
    found = stats.ttest_ind(one, other, equal_var=False).confidence_interval(0.95)
    by_summary = published.welch(one.mean(), one.std(ddof=1), 9, other.mean(), other.std(ddof=1), 25)
    assert by_summary[1:] == pytest.approx((found.low, found.high))


def test_the_sd_ratios_interval_is_that_of_the_f_test():
    ratio, low, high = published.sd_ratio(3.0, 10, 2.0, 25)
    assert ratio == 1.5
    for bound, tail in ((low, stats.f.sf), (high, stats.f.cdf)):
        assert tail((ratio / bound) ** 2, 9, 24) == pytest.approx(0.025)
    back = published.sd_ratio(2.0, 25, 3.0, 10)
    assert back[1:] == pytest.approx((1 / high, 1 / low))


def test_intervals_cover_ninety_five_of_a_hundred_normal_cells():
    draw = np.random.default_rng(2)
    inside = []
    for _ in range(400):
        one, other = draw.normal(70, 3, 8), draw.normal(70, 3, 25)
        summary = (one.std(ddof=1), 8, other.std(ddof=1), 25)
        _, low, high = published.welch(one.mean(), summary[0], 8, other.mean(), summary[2], 25)
        _, least, most = published.sd_ratio(*summary)
        inside.append((low <= 0 <= high, least <= 1 <= most))
    assert np.mean(inside, axis=0) == pytest.approx([0.95, 0.95], abs=0.035)


def test_too_few_runs_give_no_interval():
    for found in (published.welch(1, 1, 1, 2, 1, 25), published.sd_ratio(1, 1, 1, 25), published.sd_ratio(1, 5, 0, 25)):
        assert math.isnan(found[1])
        assert math.isnan(found[2])
    assert published.welch(1, 0, 5, 2, 0, 25) == (-1, -1, -1)


# ----------------------------------------------------------------------------------------------------------- one cell


@pytest.mark.parametrize("task", ["rte", "mrpc", "cola"])
@pytest.mark.parametrize(
    ("recipe", "fields", "version"),
    [("Devlin", USUAL, "v1"), ("recommended", RECOMMENDED, "v1"), ("Devlin", USUAL, "ICLR"),
     ("recommended", RECOMMENDED, "ICLR")],
)  # fmt: skip
def test_the_published_mean_and_sd_agree_and_twenty_points_away_differ(task, recipe, fields, version):
    row = number(recipe, version, task)
    made, elsewhere = scores(row.mean, row.sd), scores(1, 1)
    chosen = {"final": elsewhere, "best": made} if row.checkpoint == "best" else {"final": made, "best": elsewhere}
    found = against(own(fields, task=task, **chosen), recipe, version)
    assert (found.verdict, found.mean_verdict, found.sd_verdict) == ("agrees", "agrees", "agrees")
    assert (found.difference, found.ratio) == (pytest.approx(0, abs=1e-9), pytest.approx(1))
    assert (found.mean, found.sd, found.runs) == (pytest.approx(row.mean / 100), pytest.approx(row.sd / 100), 25)
    assert found.checkpoint == row.checkpoint
    assert f"{row.checkpoint} scores here, theirs: {row.note}" in found.why
    assert found.why.endswith("unchecked") == (row.status == "unchecked")

    shifted = {name: array - 0.2 if array is made else array for name, array in chosen.items()}
    away = against(own(fields, task=task, **shifted), recipe, version)
    assert (away.verdict, away.mean_verdict, away.sd_verdict) == ("differs", "differs", "agrees")
    assert "mean differs: −20.0 points" in away.why


def test_a_narrow_cell_at_the_published_mean_differs_in_its_sd():
    found = against(own(final=scores(52.3, 0.7)), "Devlin", "v1")
    assert (found.verdict, found.mean_verdict, found.sd_verdict) == ("differs", "agrees", "differs")
    constant = against(own(final=np.full(25, 0.523)), "Devlin", "v1")
    assert (constant.ratio, constant.ratio_high, constant.sd_verdict) == (0, 0, "differs")


def test_own_intervals_are_scipys():
    made = scores(60, 5, 9)
    found = against(own(final=made), "Devlin", "v1")
    mean = stats.ttest_1samp(made, 0).confidence_interval(0.95)
    assert (found.mean_low, found.mean_high) == (pytest.approx(mean.low), pytest.approx(mean.high))
    for bound, tail in ((found.sd_low, stats.chi2.sf), (found.sd_high, stats.chi2.cdf)):
        assert tail(8 * made.var(ddof=1) / bound**2, 8) == pytest.approx(0.025)
    assert found.maximum == made.max()


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (USUAL | {"lr": 3e-5}, "lr 3e-05 (theirs 2e-05)"),
        (USUAL | {"epochs": 10}, "epochs 10 (theirs 3)"),
        ({"lr": 2e-5, "epochs": 3}, "bias_correction on (theirs off)"),
        (USUAL | {"batch_size": 32}, "batch_size 32 (theirs 16)"),
        (USUAL | {"warmup_ratio": 0.0}, "warmup_ratio 0 (theirs 0.1)"),
        (USUAL | {"max_grad_norm": None}, "max_grad_norm none (theirs 1)"),
        (USUAL | {"token_type_ids": True}, "token_type_ids on (theirs off)"),
        (USUAL | {"precision": "bf16"}, "precision bf16 (theirs float32)"),
        (USUAL | {"reinitialised": 5}, "reinitialised 5 (not in theirs)"),
        ({"bias_correction": False}, "lr not known (theirs 2e-05); epochs not known (theirs 3)"),
    ],
)
def test_another_recipe_is_not_comparable(recipe, words):
    found = against(own(recipe), "Devlin", "v1")
    assert found.verdict == found.mean_verdict == found.sd_verdict == "not comparable"
    assert found.why == words


def test_what_does_not_change_the_training_does_not_matter():
    beside = {
        "task": {"name": "rte"},
        "model": {"name": "x"},
        "padding": "batch",
        "eval_batch_size": 8,
        "eval_steps": 52,
    }
    assert against(own(USUAL | beside), "Devlin", "v1").verdict == "agrees"
    assert against(own(model="google-bert/bert-large-uncased"), "Devlin", "v1").verdict == "agrees"


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        (own(model="roberta-large"), "model roberta-large (theirs bert-large-uncased)"),
        (own(metric="f1"), "metric f1 (theirs accuracy)"),
        (own(final=np.array([0.5])), "1 run with a score, 2 or more needed"),
        (own(final=NO_SCORES), "0 runs with a score, 2 or more needed"),
        (own(final=np.array([0.5, np.nan])), "1 run with a score, 2 or more needed"),
    ],
)
def test_what_else_is_not_comparable(cell, words):
    found = against(cell, "Devlin", "v1")
    assert (found.verdict, found.why) == ("not comparable", words)
    assert against(cell, "Devlin", "ICLR").why == f"{words}; the published numbers are unchecked"


def test_mixout_is_never_comparable():
    row = number("Mixout", "v1")
    found = against(own(final=scores(row.mean, row.sd)), "Mixout", "v1")
    assert (found.verdict, found.why) == ("not comparable", "no mixout in this sweep")


def test_a_stand_in_is_never_comparable():
    for found in compare(own(), "small stand-in, not BERT on RTE"):
        assert found.verdict == "not comparable"
        assert found.why.startswith("stand-in (other model, other data): small stand-in, not BERT on RTE")


def test_all_numbers_are_pythons_own():
    values = [value for one in compare(own()) for value in list(vars(one).values())[1:]]
    assert {type(value) for value in values} == {int, float, str}


def test_runs_without_a_score_are_left_out_and_counted():
    found = against(own(final=np.append(scores(52.3, 7.2, 23), [np.nan, np.nan])), "Devlin", "v1")
    assert (found.verdict, found.runs) == ("agrees", 23)
    assert found.why.endswith("2 of 25 runs without a score left out")


def test_other_tasks_have_no_published_rows():
    assert compare(own(task="sst2")) == []
    assert [one.published for one in compare(own())] == [row for row in NUMBERS if row.task == "rte"]


# -------------------------------------------------------------------------------------------------------- whole studies


def cells_of(name: str, profile: str) -> tuple[list[Own], str | None]:
    """The cells of a shipped sweep, each with scores as the usual recipe's."""
    sweep = load(SWEEPS / name, profile)
    cells = []
    for index, cell in enumerate(sweep.cells):
        recipe = cell.recipe
        fields = recipe.model_dump(exclude_defaults=True)
        made = scores(52.3, 7.2)
        cells.append(Own(index, recipe.task.name, recipe.model.name, fields, made, made))
    return cells, sweep.stand_in


def test_the_papers_sweep_has_a_cell_for_each_recipe():
    cells, stand_in = cells_of("rte_recipe.yaml", "paper")
    found = compare_study(cells, stand_in)
    assert tuple(found.columns) == COLUMNS
    assert list(found["recipe"]) == ["Devlin", "Mixout", "recommended", "Devlin", "recommended"]
    assert list(found["version"]) == ["v1", "v1", "v1", "ICLR", "ICLR"]
    assert list(found["cell"]) == [0, None, 1, 0, 1]
    assert list(found["runs"]) == [25, None, 25, 25, 25]
    assert list(found["checkpoint"]) == ["final", "final", "best", "final", "final"]
    assert list(found["verdict"])[:3] == ["agrees", "not comparable", "differs"]
    first = found.iloc[0]
    assert (first["published_mean"], first["published_sd"], first["published_max"]) == (0.523, 0.072, 0.711)
    assert (first["published_runs"], first["max"]) == (25, pytest.approx(scores(52.3, 7.2).max()))
    assert first["mean_low"] < first["mean"] < first["mean_high"]
    assert first["sd_low"] < first["sd"] < first["sd_high"]
    assert found["mean"].isna().tolist() == [False, True, False, False, False]


def test_figure_nine_has_both_recipes_among_its_cells():
    cells, stand_in = cells_of("rte_lr.yaml", "paper")
    found = compare_study(cells, stand_in)
    matched = [cells[cell].recipe for cell in found["cell"] if cell is not None]
    assert [(one["lr"], one["epochs"]) for one in matched] == [(2e-5, 3), (2e-5, 20), (2e-5, 3), (2e-5, 20)]
    without = [own for own in cells if own.recipe["epochs"] != 20]
    left = compare_study(without, stand_in)
    assert list(left["cell"])[2] is None
    assert left["why"][2].startswith("no cell with this recipe; the nearest, cell ")
    assert left["why"][2].endswith("differs in epochs 3 (theirs 20)")
    assert left["why"][4].endswith("; the published numbers are unchecked")


@pytest.mark.parametrize("name", ["rte_lr.yaml", "rte_recipe.yaml"])
def test_a_stand_in_shows_the_rows_it_stands_for(name):
    found = compare_study(*cells_of(name, "embedded"))
    assert list(found["recipe"]) == ["Devlin", "Mixout", "recommended", "Devlin", "recommended"]
    assert set(found["task"]) == {"rte"}
    assert set(found["verdict"]) == set(found["mean_verdict"]) == set(found["sd_verdict"]) == {"not comparable"}
    assert list(found["cell"]) == [None] * 5
    assert found["why"][0] == "stand-in (other model, other data): embedded stand-in, not BERT on RTE"
    assert found["published_mean"].tolist() == [0.523, 0.653, 0.701, 0.509, 0.673]


def test_another_model_is_shown_beside_the_rows():
    found = compare_study([own(model="MiniLM")])
    assert set(found["verdict"]) == {"not comparable"}
    assert found["why"][0] == (
        "no cell with this recipe; the nearest, cell 0, differs in model MiniLM (theirs bert-large-uncased)"
    )


def test_unrelated_studies_are_empty():
    for found in (compare_study([own(task="sst2")]), compare_study([], None), compare_study([], "not BERT on SST-2")):
        assert found.empty
        assert tuple(found.columns) == COLUMNS


def test_several_tasks_and_several_matching_cells():
    cells = [own(cell=4), own(cell=7, recipe=USUAL | {"padding": "batch"}), own(cell=9, task="cola")]
    found = compare_study(cells)
    assert list(found["task"]) == ["rte"] * 7 + ["cola"] * 5
    assert list(found["cell"]) == [4, 7, None, None, 4, 7, None, 9, None, None, 9, None]


def test_a_matching_cell_of_one_run_is_shown():
    found = compare_study([own(final=np.array([0.5]))])
    assert (found["cell"][0], found["runs"][0], found["mean"][0]) == (0, 1, 0.5)
    assert math.isnan(found["sd"][0])
    assert found["verdict"][0] == "not comparable"


def test_a_stand_in_stands_beside_the_recipe_whose_role_it_has():
    scores = np.array([0.5, 0.6, 0.7])
    cells = [
        Own(place, "embedded", "embedded", {"lr": 6e-4}, scores, scores + 0.1, role=role)
        for place, role in enumerate(("usual", "recommended", "mine"))
    ]
    found = compare_study(cells, "embedded stand-in, not BERT on RTE")
    by_recipe = {(row["recipe"], row["version"]): row for row in found.to_dict("records")}
    assert by_recipe["Devlin", "v1"]["cell"] == 0
    assert by_recipe["Devlin", "v1"]["mean"] == pytest.approx(0.6)
    assert by_recipe["recommended", "v1"]["cell"] == 1
    assert by_recipe["recommended", "v1"]["mean"] == pytest.approx(0.7)  # of the best checkpoints, as theirs
    assert by_recipe["Mixout", "v1"]["cell"] is None
    assert set(found["verdict"]) == {"not comparable"}
