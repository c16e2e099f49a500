"""The laws of packs on this device: whose neighbours a lane has changes no bit, and the same again gives the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.speed import work

from .kit import Journal, OutOfTime, Request, wait_for
from .models import name_of, words_of
from .speed import capturing, release, say

if TYPE_CHECKING:
    from harness.config.trials import Trial
    from harness.training.outcome import LaneResult


def laws(request: Request, journal: Journal) -> None:
    """Each law in each precision; a row is 1 where it holds and 0 where it does not."""
    journal.say("1: the law holds, bit for bit, in the trained weights and the curves; 0: it does not.")
    for precision in ("bf16",) if request.tiny else ("bf16", "tf32", "float32"):
        try:
            _laws(request, journal, precision)
        except OutOfTime:
            journal.add(f"{precision}: the laws", "", (), least=1, note="no time was left")


def _laws(request: Request, journal: Journal, precision: str) -> None:
    one, *others = _trials(request, precision, 8)
    wild = _with(others[0], lr=1e3)  # diverges
    undropped = _with(others[1], dropout=0.0, bias_correction=False)
    first = _train(request, [one, wild, undropped, others[2]])
    again = _train(request, [one, wild, undropped, others[2]])
    _law(journal, f"{precision}: the same pack again gives the same bits", first, again)
    elsewhere = _train(request, [others[3], others[4], others[5], one])
    _law(
        journal,
        f"{precision}: a lane has the same bits among other lanes and in another place",
        first[:1],
        elsewhere[3:],
    )
    with capturing(False):
        before = _train(request, [one, wild, undropped, others[2]])
    _law(journal, f"{precision}: captured steps give the bits of those that are not", first, before)
    modes = " against ".join(str(getattr(one[0].measured, "step_mode", None)) for one in (first, before))
    why = getattr(first[0].measured, "step_mode_reason", None)
    journal.say(f"{precision}: steps {modes}{f' ({why})' if why else ''}.")
    sizes = (1, 2) if request.tiny else (1, 2, 8) if precision == "bf16" else (1, 8)
    alone = {size: _train(request, [one, *others][:size])[0] for size in sizes} | {4: first[0]}
    kinds = len({result.measured.weights_sha256 for result in alone.values()})
    reference = alone[1].weights
    apart = max(float(abs(result.weights - reference).max()) for result in alone.values())
    journal.add(
        f"{precision}: different weights by size of pack ({', '.join(map(str, sorted(alone)))} lanes)", "", [kinds],
        note=f"largest difference of a weight {apart:.3g}",
    )  # fmt: skip


def _law(journal: Journal, what: str, ours: Sequence[LaneResult], theirs: Sequence[LaneResult]) -> None:
    same = [
        a.measured.weights_sha256 == b.measured.weights_sha256
        and a.curves.train_loss.tobytes() == b.curves.train_loss.tobytes()
        and a.curves.logits.tobytes() == b.curves.logits.tobytes()
        for a, b in zip(ours, theirs, strict=True)
    ]
    wrong = [str(lane) for lane, equal in enumerate(same) if not equal]
    journal.add(what, "", [float(all(same))], least=1, note=f"lanes {', '.join(wrong)} differ" if wrong else "")


def _train(request: Request, trials: Sequence[Trial]) -> list[LaneResult]:
    from harness.training import loop
    from harness.training.callbacks import report_progress

    def progress(step: int, _: int) -> None:
        request.check_time()

    request.check_time(1.0)
    found = loop.train(trials, device=request.device, threads=request.threads, callbacks=[report_progress(progress)])
    release()
    say(f"{trials[0].recipe.precision}, {len(trials)} lanes: {found[0].measured.weights_sha256[:12]}")
    return found


def _trials(request: Request, precision: str, number: int) -> list[Trial]:
    from harness.config.recipe import ModelSpec, Recipe

    name = name_of("mini", request.tiny)
    model = wait_for(request.home / name, request)
    width, rows, epochs = (16, (32, 10), 1) if request.tiny else (64, (320, 40), 6)
    home = Path(request.home / f"laws-{precision}")
    task = work.build_texts(home / "texts", rows, width, words_of(name))
    recipe = Recipe(
        task=task, model=ModelSpec(name=f"{name}-shape", folder=str(model)), lr=1e-4, epochs=epochs,
        batch_size=8 if request.tiny else 16, max_length=width, precision=precision,
    )  # type: ignore[arg-type]  # fmt: skip
    work.write(home, recipe)
    return work.trials(home, number)


def _with(trial: Trial, **fields: object) -> Trial:
    return trial.model_copy(update={"recipe": trial.recipe.model_copy(update=fields)})
