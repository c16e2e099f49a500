import dataclasses

import numpy as np
from drawn_figures import words
from made_runs import HEAD, Run, study_of
from matplotlib.collections import LineCollection

from harness.analysis.analyze import analyse
from harness.report.figures import curves, variance


def test_curves_have_a_line_a_run(drawings):
    left, right = drawings["curves"].axes[0], drawings["curves"].axes[1]
    # Bias correction off, 3 epochs: three runs at each rate, and a line for the majority or the labels' entropy.
    for ax in (left, right):
        groups = [group for group in ax.collections if isinstance(group, LineCollection)]
        assert (sum(len(group.get_segments()) for group in groups), len(ax.lines)) == (6, 1)
    assert "bias correction on, epochs 3  (n = 4)" in words(drawings["curves"])


def test_runs_whose_curves_are_not_kept_are_said(tmp_path):
    made = study_of(tmp_path, HEAD + "lr: 1e-5\nepochs: 3\nseeds: 1..2\n", {0: [Run(300), Run(310)]})
    found = analyse(dataclasses.replace(made, load=lambda row: made.load(row) if row else None))
    assert "(n = 2, 1 with curves)" in words(curves.curves(found))
    found = analyse(dataclasses.replace(made, load=lambda row: None))
    assert curves.curves(found) is None
    assert "(counts)" in words(variance.noise_floor(found))


def test_smoothing_keeps_the_mean_and_thins_out():
    steps, means = curves.smooth(np.arange(5000, dtype=np.float32))
    assert len(steps) <= 400
    assert np.allclose(means, steps - 1)  # the running mean of a straight line is that line; steps count from 1
    assert curves.smooth(np.zeros(1, np.float32))[0].tolist() == [1]
