"""A compiled step is the step within rounding, its lanes' bits are their own, and what can't be compiled trains on."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from cut_runs import same_lane
from torch import Tensor, fx
from torch._inductor import config as settings

from harness.config.recipe import ModelSpec
from harness.config.trials import Trial
from harness.models import pretrained
from harness.training import compiled, loop, replayer
from harness.training.outcome import LaneResult

Make = Callable[..., Trial]
needs_compiler = pytest.mark.skipif(compiled.compiler("cpu") == compiled.NO_COMPILER, reason="needs a C++ compiler")


@pytest.fixture
def spec(build: Callable[..., Path]) -> ModelSpec:
    """A network that nothing was recorded or compiled of."""
    return ModelSpec(name="bert", folder=str(build("bert")))


def interpreted(graph: fx.GraphModule) -> Callable[..., Sequence[Tensor]]:
    """Stands in for Inductor: the recording as it is, whose bits are the step's."""
    return graph


def compile_as(monkeypatch: pytest.MonkeyPatch, made: Callable[[fx.GraphModule], Any]) -> None:
    monkeypatch.setattr(compiled, "_compile", made)
    monkeypatch.setattr(compiled, "compiler", lambda device: "a stand-in")


@pytest.fixture(scope="module")
def real(trial: Make, build: Callable[..., Path], pytestconfig: pytest.Config) -> dict[str, list[LaneResult]]:
    """Packs of three lanes, trained plainly and with one compiled step, whose kernels the next test run finds again."""
    model = ModelSpec(name="bert", folder=str(build("bert", num_hidden_layers=1)))

    def lane(seed: int, **fields: object) -> Trial:
        return trial(seed, model=model, epochs=1, **fields)

    own, others = lane(1, lr=1e-2), [lane(2), lane(3, dropout=0.4), lane(4, lr=1e30)]  # the last diverges
    # That the compiler can do what the processor can is not tried for each of its extensions, in ten seconds.
    with pytest.MonkeyPatch.context() as patch, settings.patch({"cpp.vec_isa_ok": True}):
        if (cache := getattr(pytestconfig, "cache", None)) is not None:  # there is none with -p no:cacheprovider
            patch.setenv("XDG_CACHE_HOME", str(cache.mkdir("compiled")))
        return {
            "plain": loop.train([own, *others[:2]]),
            "first": loop.train([own, *others[:2]], compiled=True),
            "again": loop.train([own, *others[:2]], compiled=True),
            "last": loop.train([*others[1:], own], compiled=True)[::-1],
        }


@needs_compiler
def test_a_compiled_lane_is_the_plain_one_within_rounding_and_says_so(real: dict[str, list[LaneResult]]) -> None:
    plain, first = real["plain"][0], real["first"][0]
    assert (first.measured.step_mode, first.measured.step_mode_reason) == ("compiled", None)
    assert plain.measured.step_mode != "compiled"
    assert not same_lane(plain, first)
    torch.testing.assert_close(
        torch.from_numpy(first.curves.train_loss), torch.from_numpy(plain.curves.train_loss), rtol=1e-3, atol=1e-4
    )


@needs_compiler
def test_a_compiled_lane_depends_on_its_own_trial_alone(real: dict[str, list[LaneResult]]) -> None:
    first = real["first"][0]
    assert same_lane(first, real["again"][0])
    assert same_lane(first, real["last"][0])  # in another place, beside a lane that diverges
    assert real["last"][1].measured.outcome == "failed"


def test_only_whole_batches_are_compiled_whatever_was_trained_before(
    trial: Make, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = loop.train([trial(1, model=spec)])
    compile_as(monkeypatch, interpreted)
    monkeypatch.setattr(replayer, "RECORDING_PAYS", 0)
    fused = loop.train([trial(1, model=spec)], compiled=True)
    known = pretrained.network(spec, 2).compiled
    assert [type(step) for step in known.values()] == [compiled.Compiled]
    assert fused[0].measured.step_mode == "compiled"
    assert same_lane(plain[0], fused[0])  # the stand-in has the step's own bits


@pytest.mark.parametrize(
    ("fields", "steps"),
    [({"gradient_accumulation": 2}, 1), ({"r_drop": 1.0}, 1), ({"mixup": 0.4}, 1), ({"method": "lora"}, 1),
     ({"padding": "batch"}, 0)],
    ids=str,
)  # fmt: skip
def test_recipes_have_one_compiled_step_or_none(
    trial: Make, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], steps: int
) -> None:
    pack = [trial(seed, model=spec, epochs=1, **fields) for seed in (1, 2)]
    plain = loop.train(pack)
    compile_as(monkeypatch, interpreted)
    fused = loop.train(pack, compiled=True)
    assert len(pretrained.network(spec, 2, pack[0].recipe.peft_config).compiled) == steps
    assert all(same_lane(a, b) for a, b in zip(plain, fused, strict=True))
    assert (fused[0].measured.step_mode == "compiled") == bool(steps)
    assert (fused[0].measured.step_mode_reason is None) == bool(steps)


def fails(graph: fx.GraphModule) -> Any:
    raise RuntimeError("g++ went away\nand more")


def off(graph: fx.GraphModule) -> Any:
    return lambda *given: [result * 1.01 for result in graph(*given)]


def by_place(graph: fx.GraphModule) -> Any:
    """Each lane a little off, by its place in the pack."""

    def run(*given: Tensor) -> list[Tensor]:
        results = graph(*given)
        scale = 1 + 1e-6 * torch.arange(len(results[0]))
        return [result * scale.view(-1, *[1] * (result.dim() - 1)) for result in results]

    return run


@pytest.mark.parametrize(
    ("made", "reason"),
    [(fails, "RuntimeError: g++ went away"), (off, "its results are 0.01 apart from the step's"),
     (by_place, "a lane's last bits depend on its place in the pack")],
)  # fmt: skip
def test_a_step_that_cannot_be_compiled_runs_as_without_and_says_why(
    trial: Make, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch, made: Callable[[fx.GraphModule], Any], reason: str
) -> None:
    pack = [trial(seed, model=spec, epochs=1) for seed in (1, 2)]
    plain = loop.train(pack)
    compile_as(monkeypatch, made)
    for _ in range(2):  # what was found out is known to the next pack
        for expected, result in zip(plain, loop.train(pack, compiled=True), strict=True):
            assert result.measured.step_mode != "compiled"
            assert result.measured.step_mode_reason == f"not compiled: {reason}"
            assert same_lane(expected, result)


def test_without_a_compiler_nothing_is_tried(trial: Make, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    compile_as(monkeypatch, fails)
    monkeypatch.setattr(compiled, "compiler", lambda device: compiled.NO_COMPILER)
    (result,) = loop.train([trial(1, model=spec, epochs=1)], compiled=True)
    assert result.measured.step_mode_reason == "not compiled: there is no C++ compiler, or for a GPU no Triton"


def test_turned_arguments_lie_as_they_did_and_share_memory() -> None:
    flat = torch.arange(12.0).view(3, 4)
    views = [flat[:, :2], flat[:, 2:].requires_grad_(), torch.tensor([5, 6, 7])]
    turned = compiled._turned(views)
    for view, other in zip(views, turned, strict=True):
        assert torch.equal(other, view.roll(1, dims=0))
        assert (other.stride(), other.storage_offset()) == (view.stride(), view.storage_offset())
    assert turned[0].untyped_storage().data_ptr() == turned[1].untyped_storage().data_ptr()
    assert torch.equal(flat.detach(), torch.arange(12.0).view(3, 4))
