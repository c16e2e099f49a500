"""Signals of a run so far, from which its failing may be told early."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.records.record import Recording

SIGNALS = ("training loss", "loss slope", "middle gradient", "update ratio", "prediction entropy")


LOGARITHMS = ("middle gradient", "update ratio")


SHARES = np.arange(1, 41) / 40  # of a run's updates, at which the signals are looked at


_WINDOW = 20  # a signal is a mean over a twentieth of the run, five updates at least


Floats = np.ndarray


def signals(train_loss: Floats, steps: int, evaluations: Floats, recording: Recording | None) -> Floats:
    """The signals of a run at each of the `SHARES` of its planned `steps`, [T, K]; NaN where not known (yet).

    `train_loss` [S] has the steps that were made, `evaluations` [E] the updates before each evaluation. The loss is the
    mean of the last window, its slope the least-squares slope over the last two, per update; the gradient norm of the
    middle layer and the ratio of update norm to weight norm are medians over the last window, as log10 (the ratio's of
    updates that change something, where there are any); the entropy, in nats, is that of the classes predicted at the
    last evaluation. A loss that is not finite is infinite, which is above all others.
    """
    table = np.full((len(SHARES), len(SIGNALS)), np.nan)
    known = signals_since(0, train_loss, steps, evaluations, recording)
    table[: len(known)] = known
    return table


def reached(done: int, steps: int) -> int:
    """How many of the `SHARES` of a run of planned `steps` are reached after so many updates."""
    return int(np.searchsorted(_updates(steps), done, side="right"))


def _updates(steps: int) -> Floats:
    """The updates after which the signals are looked at, [T]."""
    return np.ceil(SHARES * steps - 1e-9)


def signals_since(
    first: int, train_loss: Floats, steps: int, evaluations: Floats, recording: Recording | None
) -> Floats:
    """As `signals`, of the shares from number `first` on that are reached, [t - first, K]."""
    window = max(5, steps // _WINDOW)
    updates = _updates(steps)[first : reached(len(train_loss), steps)].astype(int)
    table = np.full((len(updates), len(SIGNALS)), np.nan)
    loss = np.where(np.isfinite(train_loss), train_loss, np.inf).astype(np.float64)
    gradient, ratio = _recorded(recording)
    for row, done in enumerate(updates):
        table[row, 0] = loss[max(0, done - window) : done].mean()
        table[row, 1] = _slope(loss[max(0, done - 2 * window) : done]) if done >= window else np.nan
        if recording is None:
            continue
        in_window = (recording.update <= done) & (recording.update > done - window)
        if in_window.any():
            table[row, 2] = np.median(gradient[in_window])
            # The first update of a warm-up has no rate; of two, the median would lie between nothing and something.
            moved = in_window & (recording.update_norm != 0)
            table[row, 3] = np.median(ratio[moved if moved.any() else in_window])
        seen = int(np.searchsorted(evaluations, done, side="right"))
        if 0 < seen <= len(recording.predicted):
            table[row, 4] = _entropy(recording.predicted[seen - 1])
    return table


def _slope(loss: Floats) -> float:
    if not np.isfinite(loss).all():
        return np.inf
    x = np.arange(len(loss)) - (len(loss) - 1) / 2
    return float(x @ loss / (x @ x)) if len(loss) > 1 else np.nan


def _recorded(recording: Recording | None) -> tuple[Floats, Floats]:
    """Log10 of the middle layer's gradient norm, and of the update's share of the weights, [R] each."""
    if recording is None:
        return np.empty(0), np.empty(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log10(recording.update_norm.astype(np.float64) / recording.weight_norm)
        gradient = np.log10(layer(recording, middle(recording)))
    return np.maximum(gradient, -50.0), np.maximum(ratio, -50.0)  # the logarithm of no gradient at all


def middle(recording: Recording) -> str:
    """The middle one of the layers that are trained, or the head where none is."""
    numbers = sorted({int(name.split()[0]) for name in recording.layers.tolist() if name[0].isdigit()})
    return str(numbers[len(numbers) // 2]) if numbers else "head"


def layer(recording: Recording, name: str) -> Floats:
    """The gradient norm of a layer, attention and feed-forward together, or of another part, [R]."""
    own = np.array([part == name or part.startswith(f"{name} ") for part in recording.layers.tolist()])
    norms: Floats = np.sqrt((recording.layer_norm[:, own].astype(np.float64) ** 2).sum(axis=1))
    return norms


def _entropy(counts: Floats) -> float:
    total = counts.sum()
    if not total:
        return np.nan
    shares = counts[counts > 0] / total
    return float(-(shares * np.log(shares)).sum())


def of_runs(rows: Sequence[Floats]) -> Floats:
    """Signals of runs as one array [R, T, K]."""
    return np.stack(rows) if rows else np.empty((0, len(SHARES), len(SIGNALS)))


# ------------------------------------------------------------------------------------------------------ runs that train


def of_lanes(found: Floats) -> Floats:
    """The signals of lanes so far [L, t, K] as [L, T, K], NaN where a share is not reached."""
    whole = np.full((len(found), len(SHARES), len(SIGNALS)), np.nan)
    whole[:, : found.shape[1]] = found
    return whole
