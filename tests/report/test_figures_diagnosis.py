from drawn_figures import marks, words
from matplotlib.collections import LineCollection


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
