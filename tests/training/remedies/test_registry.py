"""A remedy is a class alone: found in its file, with its own streams and state, left out where chance is not wanted."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from cut_runs import HERE, CutError, cut, same
from torch import Tensor

from harness.config.recipe import Recipe
from harness.config.trials import Trial
from harness.training import probes
from harness.training.checkpoints import Checkpoints
from harness.training.lanes import Lanes
from harness.training.loop import train
from harness.training.pack import TrainingPack
from harness.training.remedies import registry
from harness.training.remedies.remedy import Remedy
from harness.training.run import set_up

Make = Callable[..., Trial]


def test_every_file_has_its_remedy_and_hooks_have_one_order() -> None:
    classes = registry.remedy_classes()
    folder = Path(registry.__file__).parent
    others = {"__init__", "registry", "remedy"}
    assert {kind.__module__.rpartition(".")[2] for kind in classes} == {p.stem for p in folder.glob("*.py")} - others
    assert len({kind.name for kind in classes}) == len({kind.order for kind in classes}) == len(classes)
    assert [kind.order for kind in classes] == sorted(kind.order for kind in classes)
    assert all(any(kind.__dict__.get(hook) for hook in vars(Remedy) if not hook.startswith("_")) for kind in classes)


def test_a_recipe_without_remedies_has_dropout_alone(trial: Make) -> None:
    for fields, names in (({}, ["dropout"]), ({"dropout": 0.0}, []), ({"mixout": 0.1}, ["dropout", "mixout"])):
        run = set_up([trial(1, **fields)], torch.device("cpu"))
        assert [remedy.name for remedy in run.remedies] == names


def test_what_draws_is_left_out_where_a_loss_without_chance_is_wanted(trial: Make) -> None:
    """Every one of them is used by the first trial and none by the second; their losses are the same, and stay so."""
    drawn: dict[str, object] = {
        "dropout": 0.5, "mixout": 0.5, "mixup": 1.0, "neftune_alpha": 50.0, "r_drop": 5.0, "augment": "swap",
        "oversample": True,
    }  # fmt: skip
    wild, still = trial(1, **drawn), trial(1, dropout=0.0)
    used = {kind.name for kind in registry.remedy_classes() if kind.is_random and kind.used_by(wild.recipe)}
    assert used == {kind.name for kind in registry.remedy_classes() if kind.is_random}
    weights = probes.starting_weights(still)
    found = [probes.losses_at(one, [weights, weights], 20, lanes=1, device="cpu", threads=1) for one in (wild, still)]
    assert found[0][0][0] == found[0][0][1]
    np.testing.assert_array_equal(found[0], found[1])


class GradientNoise(Remedy):
    """What a new remedy needs: here noise on the gradient, less at each update (Neelakantan et al. 2015)."""

    name = "gradient_noise"
    order = 95
    is_random = True

    def __init__(self, pack: TrainingPack) -> None:
        """One stream a lane."""
        super().__init__(pack)
        self.streams = pack.streams(self.name)
        self.updates = 0

    @staticmethod
    def used_by(recipe: Recipe) -> bool:
        """Stands for a field of the recipe."""
        return recipe.weight_decay == 0.25

    def start(self, lanes: Lanes) -> None:
        self.lanes = [lane for lane, recipe in enumerate(self.pack.recipes) if self.used_by(recipe)]

    def change_gradient(self, gradient: Tensor) -> None:
        self.updates += 1
        for lane in self.lanes:
            noise = torch.empty(gradient.shape[1]).normal_(generator=self.streams[lane])
            gradient[lane].add_(noise, alpha=0.01 / self.updates)

    def state(self) -> dict[str, Tensor]:
        return {"updates": torch.tensor(self.updates)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.updates = int(state["updates"])


def test_a_new_remedy_is_a_class_alone(trial: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It changes its own lanes, keeps to itself in a pack, and a run that was cut goes on with its state."""
    trials = [trial(1, weight_decay=0.25), trial(2), trial(3, weight_decay=0.25)]
    before = train(trials)
    known = (*registry.remedy_classes(), GradientNoise)
    monkeypatch.setattr(registry, "remedy_classes", lambda: known)
    results = train(trials)
    assert [same([a], [b]) for a, b in zip(results, before, strict=True)] == [False, True, False]
    assert same(train(trials[2:]), results[2:])
    for at in (3, 9):
        with pytest.raises(CutError):
            train(trials, callbacks=[cut(at)], checkpoint=Checkpoints(tmp_path, 0).of(trials, HERE))
    assert same(train(trials, checkpoint=Checkpoints(tmp_path, math.inf).of(trials, HERE)), results)
