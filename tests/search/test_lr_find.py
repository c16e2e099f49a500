"""The learning-rate finder: curves against a plain loop, suggestions against made-up curves, and its warning."""

import copy
import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from made_runs import MOSBACH, Run, store_of, sweep_of
from typer.testing import CliRunner

from harness.cli.app import app
from harness.common.errors import HarnessError
from harness.config.trials import Trial, expand, where
from harness.models import pretrained
from harness.records.store import Store
from harness.search import lr_range
from harness.training import loop, probes
from harness.training.numerics import stream
from harness.training.prepare import load_task

pytestmark = pytest.mark.usefixtures("cpu_only")


def test_the_rates_rise_by_one_factor_a_step_and_drive_every_lane(trial) -> None:
    pack = [trial(seed, epochs=2) for seed in (1, 2, 3)]
    rates, losses = probes.lr_range(pack, 1e-5, 1e-1, device="cpu", threads=1)
    assert (rates[0], rates.shape, losses.shape) == (1e-5, (16,), (16, 3))
    np.testing.assert_allclose(rates[1:] / rates[:-1], (1e4) ** (1 / 15), rtol=1e-12)
    assert rates[-1] == pytest.approx(1e-1)
    alone = probes.lr_range(pack[1:2], 1e-5, 1e-1, device="cpu", threads=1)[1]
    assert np.array_equal(alone[:, 0], losses[:, 1])  # bit for bit, whatever the pack
    other = probes.lr_range([trial(2, epochs=2, lr=9.0, warmup_ratio=0.9)], 1e-5, 1e-1, device="cpu", threads=1)[1]
    assert np.array_equal(other, alone)  # the recipe's own rate and warm-up are not used
    assert not np.array_equal(losses[:, 0], losses[:, 1])


def plain_range(given: Trial, rates: np.ndarray) -> list[float]:
    """Losses of a loop as people write it, an epoch without dropout, with torch's Adam."""
    recipe = given.recipe
    task = load_task(recipe.task, recipe.model, recipe.max_length)
    network = pretrained.network(recipe.model, task.num_labels)
    module = copy.deepcopy(network.module).eval().requires_grad_(True)
    module.load_state_dict(module.state_dict() | network.initialised(stream("init", given.seeds.init_seed)))
    # Its eps is added to the corrected root of v: as small here, the two forms agree.
    optimizer = torch.optim.Adam(module.parameters(), lr=1.0, eps=1e-12)
    ids, lengths = torch.from_numpy(task.train.input_ids), torch.from_numpy(task.train.lengths)
    labels = torch.from_numpy(task.train.labels)
    losses = []
    order = torch.randperm(len(labels), generator=stream("order", given.seeds.order_seed))
    for rate, rows in zip(rates, order.split(recipe.batch_size), strict=True):
        mask = (torch.arange(ids.shape[1]) < lengths[rows][:, None]).long()
        loss = F.cross_entropy(module(input_ids=ids[rows], attention_mask=mask).logits, labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.param_groups[0]["lr"] = float(rate)
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_a_range_test_equals_a_plain_loop(trial) -> None:
    given = trial(3, epochs=1, dropout=0.0, weight_decay=0.0, max_grad_norm=None, eps=1e-12)
    rates, losses = probes.lr_range([given], 1e-5, 1e-2, device="cpu", threads=1)
    np.testing.assert_allclose(losses[:, 0], plain_range(given, rates), rtol=2e-5)


def test_a_range_test_leaves_training_as_it_was(trial) -> None:
    before = loop.train([trial(1, epochs=1)])[0]
    probes.lr_range([trial(1, epochs=1)], 1e-5, 1e-1, device="cpu", threads=1)
    after = loop.train([trial(1, epochs=1)])[0]
    assert before.measured.weights_sha256 == after.measured.weights_sha256
    assert before.curves.lr.max() <= 1e-3


def test_the_moving_average_is_corrected_for_its_start() -> None:
    losses = np.array([2.0, 1.0, 4.0])
    found = lr_range.curve(1, np.array([1e-5, 1e-4, 1e-3]), losses)
    weights = 0.9 ** np.arange(3)
    expected = [2.0, (1.0 + 0.9 * 2.0) / 1.9, losses[::-1] @ weights / weights.sum()]
    np.testing.assert_allclose(found.loss, expected, rtol=1e-12)
    assert np.array_equal(found.raw, losses)
    flat = lr_range.curve(1, np.geomspace(1e-5, 1e-1, 50), np.full(50, 0.7))
    np.testing.assert_allclose(flat.loss, 0.7, rtol=1e-12)
    rising = lr_range.curve(1, np.geomspace(1e-5, 1e-1, 50), np.linspace(0.7, 0.9, 50))
    assert (rising.steepest, rising.tenth) == (None, None)


def test_suggestions_of_a_curve_with_a_known_slope_and_minimum() -> None:
    """A sigmoid in log lr falls fastest at its middle, 1e-4, and lies lowest at 1e-2, before it blows up."""
    rates = np.geomspace(1e-6, 1, 6001)
    decades = np.log10(rates)
    losses = 0.7 - 0.5 / (1 + np.exp(-6 * (decades + 4))) + np.where(decades > -2, 50 * (decades + 2), 0)
    found = lr_range.curve(1, rates, losses)
    assert abs(math.log10(found.steepest) + 4) < 0.03  # the average lags by ten steps, a hundredth of a decade
    assert abs(math.log10(found.tenth) + 3) < 0.03
    assert found.loss[-1] <= lr_range.DIVERGED * found.loss.min()
    assert found.lr[-1] < 1.2e-2
    cut = lr_range.curve(1, rates, np.where(decades > -3, np.nan, losses))
    assert cut.lr[-1] == pytest.approx(1e-3, rel=2e-3)
    assert np.isfinite(cut.loss).all()
    assert lr_range.curve(1, rates, np.full(6001, np.nan)).steepest is None


@pytest.fixture
def made(tmp_path):
    """A sweep of which runs failed at 3e-5, some at 2e-5, none at 1e-5."""
    text = MOSBACH.replace("seeds: 1..3", "seeds: 1..4")
    sweep = sweep_of(tmp_path / "sweeps", text)
    runs = {}
    for index, cell in enumerate(sweep.cells):
        bad = {1e-5: 0, 2e-5: 1, 3e-5: 4}.get(cell.recipe.lr, 0)
        runs[index] = [Run(200) if seed < bad else Run(320) for seed in range(4)]
    return sweep, store_of(tmp_path / "results", sweep, runs)


def test_what_finished_runs_say_of_a_suggestion(made) -> None:
    sweep, store = made
    trials = where(sweep, ["bias_correction=off"])
    rates = sorted({trial.recipe.lr for trial in trials})
    tested = lr_range.rates_tested(sweep, store, trials)
    assert [one.lr for one in tested] == rates
    for one in tested:
        mine = [store.load(trial.id) for trial in trials if trial.recipe.lr == one.lr]
        assert one.finished == len(mine)
        assert one.failed == sum(record.measured.outcome == "failed" for record in mine)
    failing = [one for one in tested if one.failed]
    assert failing
    lowest = failing[0].lr
    assert lr_range.failing_near(tested, [lowest / 1.9])[0] == failing[0]
    assert lr_range.failing_near(tested, [lowest / 2.1]) == ()
    assert lr_range.failing_near(tested, [1.0]) == ()  # far beyond what was tried nothing is known
    assert lr_range.failing_near(tested, []) == ()


def test_the_warning_says_its_evidence_and_its_absence_is_said_too(made) -> None:
    sweep, store = made
    trials = where(sweep, ["bias_correction=off"])
    recipe = lr_range.one_recipe(sweep, trials, 1)
    curve = lr_range.Curve(1, np.array([1e-5]), np.array([0.7]), np.array([0.7]), 2.1e-5, 1.9e-5)
    tested = lr_range.rates_tested(sweep, store, trials)
    near = lr_range.failing_near(tested, [2.1e-5, 1.9e-5])
    said = " ".join(lr_range.words(lr_range.RangeTest(recipe, (curve,), near, tested)))
    assert "Where the loss falls fastest: 2.1e-5 (geometric mean of 1 seed, 2.1e-5 to 2.1e-5)." in said
    assert "Warning: finished runs of this sweep failed near there: " in said
    for one in near:
        assert f"{one.failed} of {one.finished} failed at lr {one.lr:g}".replace("e-05", "e-5") in said
    assert "No finished run of this sweep near" in lr_range.words(lr_range.RangeTest(recipe, (curve,), (), tested))[-1]
    assert "nothing is known of failing" in lr_range.words(lr_range.RangeTest(recipe, (curve,), (), ()))[-1]
    assert "low end of the range" not in said
    edge = lr_range.Curve(1, curve.lr, curve.loss, curve.raw, 1.05e-5, 1.9e-5)
    assert "That lies at the low end of the range" in " ".join(
        lr_range.words(lr_range.RangeTest(recipe, (edge,), (), ()))
    )
    two = lr_range.Curve(2, curve.lr, curve.loss, curve.raw, 8.4e-5, None)
    assert lr_range.RangeTest(recipe, (curve, two), (), ()).suggested("steepest") == pytest.approx(
        (4.2e-5, 2.1e-5, 8.4e-5)
    )
    assert lr_range.RangeTest(recipe, (curve, two), (), ()).suggested("tenth") == pytest.approx((1.9e-5,) * 3)


def test_several_recipes_are_refused_with_what_tells_them_apart(made) -> None:
    sweep, store = made
    with pytest.raises(
        HarnessError, match=r"one recipe: 2 differ in bias_correction\. Allowed: bias_correction=off; bias_c"
    ):
        lr_range.one_recipe(sweep, expand(sweep), 1)
    with pytest.raises(HarnessError, match="none matches"):
        lr_range.one_recipe(sweep, [], 1)
    trials = where(sweep, ["bias_correction=on"])
    for given, said in (
        ({"low": 1e-2, "high": 1e-3}, "--low must be > 0 and below --high"),
        ({"seeds": 9}, "--seeds must be between 1 and 4"),
    ):
        with pytest.raises(HarnessError, match=said):
            lr_range.find(sweep, store, trials, **({"seeds": 2, "low": 1e-5, "high": 1e-2} | given))


def test_the_command_writes_picture_curves_and_json(tmp_path, monkeypatch, data, bert) -> None:
    monkeypatch.chdir(tmp_path)
    task, model = json.dumps(data.model_dump(exclude_none=True)), json.dumps(bert.model_dump())
    rest = "batch_size: 8\nlr: [1e-3, 1e-2]\nepochs: 3\nseeds: 1..3\n"
    (tmp_path / "tiny.yaml").write_text(f"task: {task}\nmodel: {model}\n{rest}")
    words = ["lr-find", "tiny.yaml", "--seeds", "2", "--epochs", "2", "--json"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    shown = json.loads(result.stdout)
    assert [one["seed"] for one in shown["seeds"]] == [1, 2]
    assert (shown["warning"], shown["tested"]) == (False, [])
    folder = tmp_path / "results" / "tiny@default" / "lr_find"
    assert sorted(path.name for path in folder.iterdir()) == [
        "curves.csv", "lr_find.json", "lr_find.pdf", "lr_find.png", "lr_find.svg",
    ]  # fmt: skip
    assert json.loads((folder / "lr_find.json").read_text()) == shown
    lines = (folder / "curves.csv").read_text().splitlines()
    assert lines[0] == "seed,lr,smoothed_loss,loss"
    assert len(lines) == 1 + sum(one["steps"] for one in shown["seeds"])
    assert Store(folder.parent).load_plan() is None  # nothing was planned or recorded
    result = CliRunner().invoke(app, [word for word in words if word not in ("--seeds", "2", "--epochs")])
    assert result.exit_code == 0, result.output  # a sweep with fewer seeds than the usual four
    assert [one["seed"] for one in json.loads(result.stdout)["seeds"]] == [1, 2, 3]
    assert not (folder.parent / "trials").exists()
