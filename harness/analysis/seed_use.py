"""Whether a script uses the seed that it is given: where it does not, all runs of a cell come out equal."""

from __future__ import annotations

from harness.common.text import count_noun
from harness.records.study import Study, numbers

_LEAST = 3  # runs of a cell: two scores on a small dev set are often equal


def ignored_seeds(study: Study) -> tuple[str, ...]:
    """A sentence where a script gave the same result for all seeds of a cell; none of what the engine trains.

    Runs that all sit at the majority, which one constant answer gives, say nothing of that.
    """
    if not any(sweep.is_script for sweep in study.sweeps):
        return ()
    runs = study.runs[study.runs["status"] == "finished"]
    equal = []
    for index, cell in enumerate(study.cells):
        own = runs[runs["cell"] == index]
        scores = numbers(own, "final_score").dropna()
        losses = numbers(own, "final_train_loss")
        chance = scores.eq(numbers(own, "majority_score")).any()
        same = len(scores) == len(own) and scores.nunique() == 1 and losses.nunique(dropna=False) == 1
        if len(own) >= _LEAST and same and not chance:
            equal.append((cell.label, len(own)))
    if not equal:
        return ()
    label, seeds = equal[0]
    more = f" (and so in {count_noun(len(equal) - 1, 'other setting')})" if len(equal) > 1 else ""
    return (
        f"Warning: all {seeds} seeds of {label} gave exactly the same score{more}: the script may ignore its seed. "
        "Then its runs are one run repeated, and no interval on this page holds.",
    )
