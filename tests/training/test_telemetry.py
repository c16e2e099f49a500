"""What is recorded while training: each quantity against its definition, and no result is changed by a bit."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from driving import same_arrays
from language_models import completion_task, rows, trial_of, write_decoder
from training_runs import begin

from harness.common.errors import HarnessError
from harness.config.recipe import ModelSpec
from harness.config.sweep_file import load
from harness.config.trials import Trial
from harness.models import pretrained
from harness.records import early_signals
from harness.records.record import Curves, Recording
from harness.training import loop, telemetry
from harness.training.loop import update
from harness.training.outcome import LaneResult

Make = Callable[..., Trial]
KINDS = ("bert", "roberta", "distilbert", "albert", "electra", "deberta-v2", "gpt2", "llama")


def recorded(found: LaneResult) -> Recording:
    assert found.curves.recording is not None
    return found.curves.recording


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_belongs_to_a_part(build: Callable[..., Path], kind: str) -> None:
    layers = {"n_layer": 2, "n_embd": 16, "n_head": 2} if kind == "gpt2" else {}
    network = pretrained.network(ModelSpec(name=kind, folder=str(build(kind, **layers))), 2)
    names = list(network.pretrained)
    found = dict(zip(names, telemetry.groups(names, network.head), strict=True))
    parts = list(dict.fromkeys(found.values()))
    assert parts[0] == "embeddings"
    assert parts[-1] == "head"
    numbers = (1,) if kind == "albert" else (1, 2)  # ALBERT's layers share their weights
    inner = {f"{number} {part}" for number in numbers for part in ("attention", "feed-forward")}
    # A decoder's last normalisation stands where the others have the pooler.
    assert set(parts) - {"embeddings", "pooler", "head"} == inner
    for name, part in found.items():
        if "query" in name or "q_proj" in name or "q_lin" in name or "c_attn" in name:
            assert part.endswith("attention"), name
        if "intermediate" in name or "mlp" in name or "ffn" in name:
            assert part.endswith("feed-forward"), name


def test_a_part_in_two_stretches_is_one() -> None:
    names = ["m.embed.weight", "m.layers.0.self_attn.w", "m.layers.0.mlp.w", "m.layers.0.input_layernorm.w", "score.w"]
    recorder = telemetry.Telemetry(names, ["score.w"], [2, 1, 2, 1, 1], steps=1)
    gradient = torch.tensor([[3.0, 4.0, 5.0, 6.0, 8.0, 12.0, 0.5]])
    weights = torch.zeros(1, 7)
    with recorder.update(1, weights, gradient):
        weights += torch.tensor([0.0, 3.0, 0.0, 0.0, 4.0, 0.0, 0.0])
        gradient.zero_()
    recorder.evaluation(np.array([[[0.0, 1.0], [2.0, 1.0], [0.0, 3.0]]]), None)
    found = recorder.of(0, 1, 1)
    assert found.layers.tolist() == ["embeddings", "1 attention", "1 feed-forward", "head"]
    np.testing.assert_allclose(found.layer_norm, [[5, 13, 10, 0.5]])
    np.testing.assert_allclose([found.update_norm, found.weight_norm], [[5], [0]])
    assert found.predicted.tolist() == [[1, 2]]


@pytest.mark.parametrize(
    ("kind", "method", "parts"),
    [
        ("gpt2", "full", ["embeddings", "1 attention", "1 feed-forward", "2 attention", "2 feed-forward", "output"]),
        ("llama", "full", ["embeddings", "1 attention", "1 feed-forward", "2 attention", "2 feed-forward", "output"]),
        ("gpt2", "lora", ["1 attention", "2 attention"]),
        ("llama", "lora", ["1 attention", "1 feed-forward", "2 attention", "2 feed-forward"]),
    ],
)
def test_a_decoder_is_recorded_by_its_layers(tmp_path: Path, kind: str, method: str, parts: list[str]) -> None:
    """Of LoRA the norms are those of what it trains; at the first update only B has a gradient, for B is 0."""
    task = completion_task(tmp_path / "answers", rows(24, 1), rows(8, 2))
    fields: dict[str, Any] = {"method": method, "warmup_ratio": 0.0, "dropout": 0.0}
    if method == "lora":
        fields |= {"lora_rank": 2} | ({"lora_targets": "q_proj,v_proj,down_proj"} if kind == "llama" else {})
    pack = [trial_of(task, write_decoder(tmp_path / kind, kind), seed, **fields) for seed in (1, 2)]
    together, (alone,) = loop.train(pack), loop.train(pack[:1])
    found = recorded(together[0])
    assert found.layers.tolist() == parts
    assert same_arrays(alone.curves.arrays, together[0].curves.arrays)
    np.testing.assert_allclose(np.sqrt((found.layer_norm**2).sum(axis=1)), alone.curves.grad_norm, rtol=1e-6)
    assert (found.layer_norm > 0).all()
    assert (found.update_norm > 0).all()
    signals = early_signals.signals(alone.curves.train_loss, 12, alone.curves.eval_step, found)
    assert np.isfinite(signals[-1]).all()
    assert early_signals.middle(found) == "2"


def test_the_parts_make_the_whole_and_the_updates_the_way(trial: Make) -> None:
    """Layer norms add up to the global norm, before clipping; and SGD's update is the rate times what is left of it."""
    fields = {"warmup_ratio": 0.0, "weight_decay": 0.0, "optimizer": "sgd", "momentum": 0.0, "max_grad_norm": 0.1}
    one = loop.train([trial(3, **fields)])[0]
    found = recorded(one)
    assert found.update.tolist() == [*range(1, 17)]
    np.testing.assert_allclose(np.sqrt((found.layer_norm**2).sum(axis=1)), one.curves.grad_norm, rtol=1e-6)
    np.testing.assert_allclose(found.update_norm, one.curves.lr * np.minimum(one.curves.grad_norm, 0.1), rtol=1e-3)
    assert (one.curves.grad_norm > 0.1).any()


def test_update_and_weight_norms_are_those_of_the_weights(trial: Make) -> None:
    pack = [trial(1), trial(2, lr=1e-2)]
    run = begin(pack, record=True)
    before = []
    for step in range(4):
        before.append(run.lanes.weights.clone())
        update(run, step)
    before.append(run.lanes.weights.clone())
    for lane in range(2):
        assert run.telemetry is not None
        found = run.telemetry.of(lane, 4, 0)
        for step in range(4):
            change = before[step + 1][lane].double() - before[step][lane].double()
            assert found.update_norm[step] == pytest.approx(float(change.norm()), rel=1e-5)
            assert found.weight_norm[step] == pytest.approx(float(before[step][lane].double().norm()), rel=1e-6)


@pytest.mark.parametrize("fields", [{}, {"padding": "batch"}, {"method": "lora"}, {"averaging": "ema"}])
def test_recording_changes_no_result_and_knows_no_pack(trial: Make, fields: dict[str, object]) -> None:
    pack = [trial(seed, lr=lr, **fields) for seed, lr in ((1, 1e-3), (2, 1e-2), (3, 1e30))]  # the last diverges
    with_it, without = loop.train(pack), loop.train(pack, record=False)
    for one, other in zip(with_it, without, strict=True):
        assert one.measured.weights_sha256 == other.measured.weights_sha256
        assert other.curves.recording is None
        assert same_arrays(Curves(**vars(one.curves) | {"recording": None}).arrays, other.curves.arrays)
    for lane in range(3):
        alone = loop.train([pack[lane]])[0]
        assert same_arrays(alone.curves.arrays, with_it[lane].curves.arrays)
    assert not np.isfinite(recorded(with_it[2]).update_norm).all()
    assert recorded(with_it[2]).predicted[-1].sum() == 0
    assert np.isnan(recorded(with_it[2]).cls_rank[-1])


def test_what_is_predicted_is_counted(trial: Make) -> None:
    found = loop.train([trial(1)])[0]
    answers = np.bincount(found.curves.logits.argmax(axis=1), minlength=2)
    assert recorded(found).predicted[-1].tolist() == answers.tolist()
    assert recorded(found).predicted.shape == (2, 2)


def test_a_run_that_stops_early_is_recorded_to_there(trial: Make) -> None:
    fields = {"epochs": 6, "early_stopping_patience": 1, "early_stopping_on": "score", "lr": 1e-7}
    found = loop.train([trial(1, **fields), trial(2, **fields | {"lr": 1e-3})])
    stopped = found[0].measured.stopped_step
    assert stopped is not None
    assert recorded(found[0]).update[-1] == stopped
    assert len(recorded(found[0]).predicted) == len(found[0].curves.eval_step)


def test_a_long_run_is_recorded_evenly() -> None:
    recorder = telemetry.Telemetry(["x.weight"], [], [1], steps=1201)
    due = [update for update in range(1, 1202) if recorder.due(update)]
    assert due == list(range(1, 1202, 3))
    assert [u for u in range(1, 501) if telemetry.Telemetry(["x.weight"], [], [1], steps=500).due(u)] == [
        *range(1, 501)
    ]


@pytest.mark.parametrize("kind", ["bert", "distilbert", "gpt2", "llama"])
def test_the_vectors_are_those_that_the_head_reads(build: Callable[..., Path], kind: str) -> None:
    layers = {"n_layer": 2, "n_embd": 16, "n_head": 2} if kind == "gpt2" else {}
    network = pretrained.network(ModelSpec(name=kind, folder=str(build(kind, **layers))), 2)
    network.module.eval()
    ids, lengths = torch.tensor([[2, 5, 6, 3, 0], [2, 7, 3, 0, 0]]), torch.tensor([4, 3])
    given = network.inputs(ids, lengths, None)
    with torch.no_grad(), telemetry.vectors(network.module, network.causal) as found:
        logits = network.module(**given).logits
    hidden = network.module.base_model(**given)[0]
    at = lengths - 1 if network.causal else torch.zeros(2, dtype=torch.long)
    torch.testing.assert_close(found[0], hidden[torch.arange(2), at].detach())
    if network.causal:
        torch.testing.assert_close(network.module.score(found[0]), logits)  # type: ignore[operator]
    assert not network.module.base_model._forward_hooks  # type: ignore[union-attr]


def test_spread_against_the_spectrum() -> None:
    stream = torch.Generator().manual_seed(0)
    for shape in ((40, 6), (5, 30)):
        x = torch.randn(shape, generator=stream) * torch.arange(1, shape[1] + 1)
        rank, cosine = telemetry.spread(x)
        spectrum = np.linalg.eigvalsh(np.cov(x.numpy().astype(np.float64).T))
        assert rank == pytest.approx(spectrum.sum() ** 2 / (spectrum**2).sum(), rel=1e-6)
        pairs = torch.nn.functional.cosine_similarity(x[:, None], x[None], dim=-1).double()
        n = len(x)
        assert cosine == pytest.approx(float((pairs.sum() - n) / (n * (n - 1))), rel=1e-4, abs=1e-6)
    assert telemetry.spread(torch.ones(4, 3) * 7) == pytest.approx((0, 1))
    assert telemetry.spread(torch.tensor([[1.0, 0], [-1.0, 0]])) == pytest.approx((1, -1))
    assert all(map(math.isnan, telemetry.spread(torch.tensor([[1.0], [torch.nan]]))))
    assert all(map(math.isnan, telemetry.spread(torch.ones(1, 3))))


def test_the_switch_is_read_and_refused(tmp_path: Path) -> None:
    path = tmp_path / "one.yaml"
    text = "task: embedded\nmodel: embedded\nlr: 1e-5\nepochs: 1\nseeds: 1\n"
    path.write_text(text + "record: off\n")
    assert not load(path).record
    path.write_text(text)
    assert load(path).record
    path.write_text(text + "record: some\n")
    with pytest.raises(HarnessError, match=r"record must be on or off \(got 'some'"):
        load(path)
