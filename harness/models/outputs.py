"""What a network answers, whatever its class calls it; and the best answer in a window of a context."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.common import squad
from harness.data.spans import LABELS
from harness.data.tokenized import Windows

# What is kept of a window, a column each: the loss of its labels, nats; the sums of start's and end's logits of its
# best answer and of none; the answer's first and last token; what such a sum less is a log-probability.
OF_WINDOW = ("loss", "best", "none", "first", "last", "log_norm")


def logits_of(output: Any) -> Tensor:
    """The logits of a module's output, [b, C] or of tokens [b, T, C]; of answers' starts and ends [b, T, 2]."""
    logits: Tensor | None = output.get("logits")
    return torch.stack([output.start_logits, output.end_logits], dim=-1) if logits is None else logits


def span_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean of start's and end's cross-entropy of each window, [b], of logits [b, T, 2] and `LABELS` [b, 6].

    As transformers' models for question answering have it; padding is no place that is told apart.
    """
    start, end = _real(logits, labels)
    begins, ends = (labels[:, LABELS.index(name)] for name in ("start", "end"))
    return (F.cross_entropy(start, begins, reduction="none") + F.cross_entropy(end, ends, reduction="none")) / 2


def best_in_windows(logits: Tensor, labels: Tensor, longest: int) -> Tensor:
    """What is kept of each window, `OF_WINDOW` [b, 6]: its best answer is of at most so many tokens of the context.

    Args:
        logits: of start and end, [b, T, 2].
        labels: `LABELS` of the windows, [b, 6].
        longest: tokens of an answer.
    """
    start, end = _real(logits, labels)
    longest = min(longest, logits.shape[1])
    none, first, behind = (labels[:, LABELS.index(name), None] for name in ("none", "first", "behind"))
    places = torch.arange(logits.shape[1], device=logits.device)
    outside = (places < first) | (places >= behind)
    ends = F.pad(end.masked_fill(outside, -torch.inf), (0, longest - 1), value=-torch.inf)
    best_end, length = ends.unfold(1, longest, 1).max(dim=2)  # [b, T]: of the answers that begin at each token
    best, begin = (start.masked_fill(outside, -torch.inf) + best_end).max(dim=1)  # [b]
    begin = begin[:, None]
    norm = start.logsumexp(dim=1) + end.logsumexp(dim=1)
    of_none = (start.gather(1, none) + end.gather(1, none))[:, 0]
    last = (begin + length.gather(1, begin))[:, 0]
    kept = (span_losses(logits, labels), best, of_none, begin[:, 0].float(), last.float(), norm)
    return torch.stack(kept, dim=-1)


def _real(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The logits of start and end, [b, T] each, without those of padding."""
    padding = torch.arange(logits.shape[1], device=logits.device) >= labels[:, LABELS.index("length"), None]
    start, end = (logits[..., place].masked_fill(padding, -torch.inf) for place in (0, 1))
    return start, end


def chosen(rows: np.ndarray, question: np.ndarray, offsets: np.ndarray, *, abstains: bool) -> np.ndarray:
    """The answer to each of Q questions, [Q, 4] float32: loss, probability, start and end in its context.

    The best of a question's windows by the sum of its logits; where a question may have none (`abstains`), none if the
    least of its windows' sums for that is larger, as in SQuAD's baselines (threshold 0). The loss is that of all
    windows of a question times Q / N, so that the mean over questions is that over windows. NaN where a number isn't
    finite.

    Args:
        rows: `OF_WINDOW` of N windows in the order of their questions, [N, 6].
        question: which question each is of, [N]; every question has a window.
        offsets: of their tokens, [N, T, 2].
        abstains: whether a question may be answered by nothing, whose start and end are the same.
    """
    begins = np.flatnonzero(np.diff(question, prepend=-1))  # [Q]
    loss = np.add.reduceat(rows[:, 0].astype(np.float64), begins) * (len(begins) / len(rows))
    made = np.full((len(begins), 4), np.nan, dtype=np.float32)
    for number, own in enumerate(np.split(np.arange(len(rows)), begins[1:])):
        if not np.isfinite(rows[own]).all():
            continue
        _, best, none, first, last, norm = rows[own].T
        window, empty = int(best.argmax()), int(none.argmin())
        if abstains and none[empty] > best[window]:
            made[number] = loss[number], np.exp(none[empty] - norm[empty]), 0, 0
        else:
            places = offsets[own[window]]
            start, end = places[int(first[window]), 0], places[int(last[window]), 1]
            made[number] = loss[number], np.exp(best[window] - norm[window]), start, end
    return made


def compared(answers: np.ndarray, windows: Windows) -> np.ndarray:
    """The answers [Q, 4] of `chosen` with what they score, `squad.COLUMNS` [Q, 6] float32."""
    exact_and_f1 = np.full((len(answers), 2), np.nan, dtype=np.float32)
    for number, (text, expected) in enumerate(zip(texts(answers, windows.contexts), windows.expected, strict=True)):
        if text is not None:
            exact_and_f1[number] = squad.best(text, expected)
    loss, *rest = answers.T
    columns = dict(zip(squad.COLUMNS, (loss, *exact_and_f1.T, *rest), strict=True))
    return np.stack([columns[name] for name in squad.COLUMNS], axis=1)


def texts(answers: np.ndarray, contexts: Sequence[str]) -> list[str | None]:
    """The texts of answers [Q, 4] in their contexts; None where there is none as numbers are not finite."""
    return [
        context[int(start) : int(end)] if np.isfinite(start) else None
        for (start, end), context in zip(answers[:, 2:], contexts, strict=True)
    ]
