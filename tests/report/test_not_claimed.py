"""What a page must not claim: of lacking runs, ties, too few runs, scores on two scales, diverged runs."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from made_runs import HEAD, Run, import_of, imported_runs, store_of, study_of, sweep_of
from said_of_studies import ARMS, everything

from harness.analysis.analyze import analyse
from harness.common.errors import HarnessError
from harness.config.trials import expand
from harness.records.study import joined, of_sweep
from harness.report import card, headline, next_experiment, page_notes
from harness.report.sections import best, level, seed_parts

FAILED = Run(200, 0.69)
CRASHED = Run(crashed="Traceback\nRuntimeError: no")


def runs(*counts: int) -> list[Run]:
    return [Run(count) if count > 200 else FAILED for count in counts]


def said(folder: Path, text: str, of_cells: dict[int, list[Run | None]]) -> str:
    return "\n".join(everything(analyse(study_of(folder, text, of_cells))))


def test_runs_that_lack_in_one_arm_alone_are_said(tmp_path: Path) -> None:
    whole = runs(310, 320, 330, 325, 315, 318)
    uneven = said(tmp_path / "a", ARMS.format(6), {0: whole, 1: [*whole[:2], CRASHED, CRASHED, None, None]})
    assert "Crashed and missing runs are spread unevenly: 2 of 6 finished at bias correction on." in uneven
    even = said(tmp_path / "b", ARMS.format(6), {0: [*whole[:5], None], 1: [*whole[:5], CRASHED]})
    assert "unevenly" not in even


def test_records_that_cannot_be_used_are_called_neither_crashed_nor_missing_where_runs_lack(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, ARMS.format(6))
    store = store_of(tmp_path, sweep, {cell: runs(310, 320, 330, 325, 315, 318) for cell in range(2)})
    for trial in expand(sweep)[6:10]:
        store.path(trial.id).write_text("{")
    said_of_it = "\n".join(everything(analyse(of_sweep(sweep, store))))
    assert "Crashed, missing and unreadable runs are spread unevenly: 2 of 6 finished at bias" in said_of_it


def test_of_equal_spreads_the_first_is_the_widest_everywhere(tmp_path: Path) -> None:
    shifted = {cell: runs(*(310 + 5 * cell + step for step in (0, 3, -4, 7, 2, -6))) for cell in range(2)}
    assert "spread is widest" not in said(tmp_path, ARMS.format(6), shifted)


def test_cells_that_fail_alike_are_counted_and_none_fails_most(tmp_path: Path) -> None:
    alike = analyse(study_of(tmp_path, ARMS.format(3), {0: runs(0, 0, 0), 1: runs(0, 0, 0)}))
    proposed = next_experiment.next_sweep(alike)
    assert proposed is not None
    assert proposed[0].startswith("2 cells fail as often as any, of which “bias correction off” is taken: 3 of 3")


def test_too_few_runs_show_no_difference_and_none_is_denied(tmp_path: Path) -> None:
    few = said(tmp_path, ARMS.format(2), {0: runs(0, 0), 1: runs(310, 320)})
    assert "However 2 runs against 2 had ended, the test would have shown no difference".lower() in few.lower()
    assert "no significant difference to the failure rate" not in few


def test_two_seeds_by_rule_are_too_few_as_well(tmp_path: Path) -> None:
    rule = "{first: 3, at_most: 20, step: 3, until: bias_correction settled}"
    text = ARMS.replace("1..{}", "{}").format(rule)
    few = said(tmp_path, text, {0: runs(0, 0, 0), 1: runs(310, 320, 330)})
    assert "the test would have shown no difference" in few


def test_a_recipe_does_not_become_the_best_by_losing_its_worst_runs(tmp_path: Path) -> None:
    lost = [*runs(330, 332, 331, 335, 329, 333), Run(diverged=True), Run(diverged=True)]
    steady = runs(320, 321, 322, 323, 324, 325, 326, 327)
    (mean, *_) = best.sentences(analyse(study_of(tmp_path, ARMS.format(8), {0: lost, 1: steady})))
    assert "no other recipe" not in mean
    sound = best.sentences(analyse(study_of(tmp_path / "b", ARMS.format(8), {0: lost[:6], 1: steady[:6]})))
    assert sound[0].startswith("The best mean score is that of bias correction off (mean 0.829); no other recipe")


def test_where_all_recipes_may_be_best_sentence_card_and_table_recommend_none(tmp_path: Path) -> None:
    analysis = analyse(study_of(tmp_path, ARMS.format(3), {0: runs(320, 325, 330), 1: runs(322, 326, 328)}))
    (told,) = best.recommendation(analysis)
    (card_of,) = (figure for figure in headline.cards(analysis) if figure.label == "Recommended")
    assert str(told).startswith("No recommendation")
    assert (card_of.value, card_of.note) == ("none", "both recipes may be the best")
    assert not analysis.best_set["recommended"].any()


def test_near_chance_runs_stand_beside_a_recommendation(tmp_path: Path) -> None:
    near = [Run(203, 0.69)] * 6
    mostly = [*runs(318, 319, 320, 321, 322), Run(202, 0.69)]
    (told,) = best.recommendation(analyse(study_of(tmp_path, ARMS.format(6), {0: mostly, 1: near})))
    assert "bias correction off (0 of 6 failed, 1 near chance)" in told


def test_the_card_says_what_failed_means_and_what_lacks(tmp_path: Path) -> None:
    lacking = analyse(study_of(tmp_path, ARMS.format(3), {0: runs(0, 310, 320), 1: [*runs(310, 320), None]}))
    text = card.card(lacking)
    assert "Failed means a final accuracy at or below that of always answering the majority class, 0.500." in text
    assert "1 of the 6 planned runs is missing; these count neither as failed nor as finished." in text
    assert "| bias correction off | 3 | 1 of 3 | 33 % \\[6, 79\\] |" in text or "33 % [6, 79]" in text


def test_an_import_that_nobody_judged_has_no_successful_runs(tmp_path: Path) -> None:
    rows = [*imported_runs([0.81, 0.82, 0.8]), *imported_runs([0.84, 0.79, 0.85], 1)]
    unjudged = analyse(import_of(tmp_path, [(("lr", 1e-5),), (("lr", 2e-5),)], rows))
    assert not any("successful" in text or "failed runs" in text for text in level.sentences(unjudged))


def test_fractions_beside_percentages_are_refused_and_within_one_study_said(tmp_path: Path) -> None:
    cells = [(("lr", 1e-5),), (("lr", 2e-5),)]
    fractions, percentages = [0.81, 0.82, 0.8], [81.0, 82.0, 80.0]
    first = import_of(tmp_path, cells, [*imported_runs(fractions), *imported_runs(fractions, 1)], name="first")
    second = import_of(tmp_path, cells, [*imported_runs(percentages), *imported_runs(percentages, 1)], name="second")
    with pytest.raises(HarnessError, match="different scales"):
        joined(first, second)
    assert joined(first, dataclasses.replace(first, name="again"))
    mixed = import_of(tmp_path, cells, [*imported_runs(fractions), *imported_runs(percentages, 1)], name="mixed")
    (warning,) = (text for text in page_notes.notes(mixed) if text.startswith("Warning"))
    assert "like fractions in some settings (lr 1e-5: up to 0.82)" in warning
    assert not any(text.startswith("Warning") for text in page_notes.notes(first))


def test_a_seed_part_without_a_share_is_not_called_the_largest(tmp_path: Path) -> None:
    text = HEAD + "lr: 1e-5\nepochs: 3\nseeds: 1..1\ninit_seed: 1..3\norder_seed: 1..3\n"
    swings = np.array([[10, -5, -5], [-5, 10, -5], [-5, -5, 10]]).ravel()  # all of it interaction
    study = study_of(tmp_path, text, {0: runs(*(int(320 + swing) for swing in swings))})
    (told, *_) = seed_parts.largest_parts(analyse(study))
    assert "No part of the seed is seen to make a share of the variance of the score by itself" in told
    assert "is the seed component with the largest share" not in told
