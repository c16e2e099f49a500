"""The words of the report: those that every section uses, then those that the sections bring."""

from __future__ import annotations

from harness.analysis.verdicts import NEAR_ENTROPY
from harness.report.contents import SECTIONS
from harness.report.coverage import held
from harness.report.formatting import percent
from harness.report.headline import TERM as UNSTABLE
from harness.report.section import Term

_COMMON: tuple[Term, ...] = (
    ("cell, recipe", "One combination of the settings that were varied; the runs of a cell differ only in their seed."),
    (
        "failed",
        "A finished run whose final dev score is at or below that of always answering the majority class, compared "
        "in counts of right answers. A run that diverged (NaN or infinite) has no score and counts as failed. "
        "Reasons, where known: constant (the same answer everywhere), diverged, collapsed (was above the "
        "majority, ended below). Of a regression a run failed that is no better than always answering the mean: its "
        "correlation is at or below 0. Of a language model's completions a run failed that is no better than the "
        "untouched model, scored once before any training; where all examples have the same choices, nor than always "
        "giving the commonest one. Of questions about contexts a run failed that is no better than always answering "
        "nothing, or always the commonest answer; of multiple choice one that is no better than always the most "
        "frequent position; where a text has any number of labels, than always giving the set of labels that scores "
        "best.",
    ),
    UNSTABLE,
    (
        "near chance",
        "A run above the majority by count whose right answers are not above it at 5 % (one-sided exact binomial "
        f"test) and whose training loss in the last epoch is at least {percent(NEAR_ENTROPY)} of the label "
        "entropy: not counted as failed, but hardly trained. Of a regression: a correlation not above 0 at "
        "5 % (t-test), and the label variance; of a token task and of answers in a context that loss alone, unless "
        "the score is more than half of the way from what it has to beat to 1. It is marked, and not counted as "
        "failed.",
    ),
    (
        "failure rate [95 %]",
        "Failed runs as a share of finished runs, with Wilson's interval; where parts of the seed are crossed, that of "
        f"as many runs as are independent. {held('failure rate')} Rates pooled over an axis mix the settings of the "
        "others; "
        "the stratified score test keeps those apart (its informative strata are those in which some, not all, runs "
        "failed), and the interval of a difference is this test turned round.",
    ),
    ("mean, sd", "Over the scored runs of a cell, failed ones included; sd with n − 1. Where all fail, sd is small."),
    ("n", "Runs with a final score, those that the mean is over: finished without the diverged ones."),
    (
        "p, Holm",
        "p, adjusted for the number of comparisons of its axis or table. A large p does not prove that there is no "
        "difference.",
    ),
    ("crashed, missing", "The process ended or never ran: missing data, excluded from every rate."),
)


def glossary() -> tuple[Term, ...]:
    """Every word that the report explains, with its meaning."""
    return (*_COMMON, *(term for section in SECTIONS for term in section.glossary))
