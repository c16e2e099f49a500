import dataclasses

import numpy as np
import pytest
from drawn_figures import marks, recorded, words
from made_runs import HEAD, Run, study_of
from matplotlib.collections import LineCollection, QuadMesh

from harness.analysis.analyze import analyse
from harness.report.figures import diagnosis


def test_gradients_have_a_panel_for_parts_from_the_input_up(drawings):
    titles = [ax.get_title() for ax in drawings["gradient_norms"].axes]
    assert titles == ["embeddings", "layer 1 of 2", "layer 2 of 2", "pooler", "head"]
    said = words(drawings["gradient_norms"])
    assert "failed or near chance (n = 2): median" in said
    assert "others (n = 2): median" in said
    assert "cells with both outcomes" in said
    for ax in drawings["gradient_norms"].axes:
        thin = [found for found in ax.findobj(LineCollection) if len(found.get_segments()) == 2]
        assert len(thin) == 2  # every run of both kinds is a line


def test_a_diverged_run_is_left_out_of_the_losses_and_said_to_be(drawings):
    assert "1 diverged left out" in drawings["loss_vs_score"].get_suptitle()
    assert marks(drawings["loss_vs_score"]) == 21  # of 22 finished runs


def test_the_largest_factor_is_named(drawings):
    assert "6.57 × at update 12" in words(drawings["step_size_factor"])


def test_the_surface_names_its_runs_and_their_fate(drawings):
    said = words(drawings["loss_surface"])
    assert "seed 1: ok" in said
    assert "seed 2: failed" in said
    assert "lr 1e-5, bias correction off" in drawings["loss_surface"].get_suptitle()


@pytest.mark.parametrize("value", [1.0, -1.0, np.nan, np.inf])
def test_a_surface_that_is_flat_or_no_numbers_is_drawn(value):
    logs, levels = diagnosis._log_scale(np.full((4, 5), value))
    assert logs.shape == (4, 5)
    assert (np.diff(levels) > 0).all()
    assert not np.isinf(logs).any()


def test_a_surface_of_other_trials_is_not_drawn(tmp_path):
    study = recorded(tmp_path)
    other = dataclasses.replace(study.surface, trials=np.array(["a", "b"]))
    assert diagnosis.loss_surface(analyse(dataclasses.replace(study, surface=other))) is None


def test_failed_runs_on_one_spot_are_a_heap_that_is_counted():
    x, y, piles = diagnosis.spread_out(np.array([1.0] * 19 + [0.2]), np.array([0.5] * 19 + [0.8]), 1.0, 0.4)
    assert len({(round(a, 4), round(b, 4)) for a, b in zip(x, y, strict=True)}) == 20
    assert np.abs(x[:19] - 1).max() <= 0.06
    assert np.abs(y[:19] - 0.5).max() <= 0.4 * 0.1
    assert (x[19], y[19]) == (0.2, 0.8)
    assert [(round(a, 6), count) for a, _, count in piles] == [(1.0, 19)]


def test_what_rules_catch_is_a_map_of_signals_and_shares(tmp_path):
    made = analyse(recorded(tmp_path))
    table = made.diagnosis.early_warning
    right = diagnosis.early_warning(made).axes[1]
    (mesh,) = right.findobj(QuadMesh)
    names, shares = list(dict.fromkeys(table["signal"])), sorted(set(table["share"]))
    shown = np.ma.filled(mesh.get_array().astype(float), np.nan).reshape(len(names), len(shares))
    assert [label.get_text() for label in right.get_yticklabels()] == names
    for row in table.itertuples():
        value = shown[names.index(row.signal), shares.index(row.share)]
        if row.false <= 0.01 * row.others:
            assert value == 100 * row.caught / row.lost
        else:
            assert np.isnan(value)


def test_equal_scores_look_equal_however_they_are_spread_out(tmp_path):
    """Thirty failed runs heap about one score; the axis is as wide as for scores that differ."""
    study = study_of(tmp_path, HEAD + "lr: 1e-5\nepochs: 3\nseeds: 1..30\n", {0: [Run(200, 0.693)] * 30})
    ax = diagnosis.loss_vs_score(analyse(study)).axes[0]
    heights = np.concatenate([marks.get_offsets()[:, 1] for marks in ax.collections])
    assert np.ptp(heights) < 0.15 * np.ptp(ax.get_ylim())
