"""Half a page for a model card or a paper's appendix, and a badge: what a study says of its recipes."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import harness
from harness.analysis.analyze import Analysis
from harness.analysis.failures import all_runs
from harness.common.metrics import words as metric_words
from harness.report import headline, opening
from harness.report.claims import Sentence, Words, row_at
from harness.report.files import markdown_text
from harness.report.formatting import Row, rate_of, score, unknown
from harness.report.sections import dev_set
from harness.report.wording import rate_claim

_MOST_CELLS = 12
_COLOURS = {"unstable": "#a50f15", "some runs fail": "#b35900", "no failed run": "#2e7d32", "not judged": "#555555"}


def card(analysis: Analysis) -> str:
    """The card as Markdown.

    Args:
        analysis: The tables of the study.
    """
    study = analysis.study
    lines = [f"## Stability: {markdown_text(study.title)}", ""]
    lines += [f"*{markdown_text(study.stand_in)}*", ""] if study.stand_in else []
    lines += [f"**{markdown_text(headline.verdict(analysis))}.**", "", *_table(analysis), ""]
    lines += [f"{markdown_text(sentence)}" for sentence in sentences(analysis)]
    lines += ["", f"Made with stability-harness {harness.__version__}{_versions(analysis)}."]
    command = next((text for text in study.runs["command"] if isinstance(text, str)), None)
    if command is not None:
        lines += [f"Any run can be trained again: `{command}`."]
    return "\n".join(lines) + "\n"


def _table(analysis: Analysis) -> list[str]:
    """A row a recipe: seeds, failed runs with their rate, and the score."""
    metric = "score"
    names = sorted({metric_words(str(name)) for name in analysis.runs["metric"].dropna()})
    if len(names) == 1:
        metric = f"dev {names[0]}" if analysis.study.sweeps and not analysis.study.imports else names[0]
    lines = [f"| recipe | seeds | failed | failure rate [95 %] | {markdown_text(metric)}, mean ± sd |"]
    lines += ["| --- | ---: | ---: | ---: | ---: |"]
    lines += rows(analysis)
    left = len(analysis.cells) - _MOST_CELLS
    return [*lines, "", f"{left} more recipes are left out."] if left > 0 else lines


def rows(analysis: Analysis) -> list[Sentence]:
    """The rows of the card's table with their claims."""
    return [
        _row(row_at(analysis.cells, index), cell.label)
        for index, cell in zip(analysis.cells.index[:_MOST_CELLS], analysis.study.cells, strict=False)
    ]


def _row(row: Row, label: str) -> Sentence:
    words, key = Words("cells"), ["cell"]
    finished = words.value(row, key, "finished", str)
    failed = rate = "–"
    if row["judged"]:
        words.claims.append(rate_claim(row, label, "cells", "cell"))
        failed, rate = f"{row['failed']} of {row['judged']}", rate_of(row)
    level = "–" if unknown(row["mean"]) else words.value(row, key, "mean", score)
    level += "" if unknown(row["sd"]) else f" ± {words.value(row, key, 'sd', score)}"
    return words.sentence(f"| {markdown_text(label)} | {finished} | {failed} | {rate} | {level} |")


def sentences(analysis: Analysis) -> Sequence[str]:
    """What failed means, what crashed or is missing, and the noise of the dev set."""
    words = Words("runs")
    told = [*opening.covers(analysis), words.sentence(f"{opening.failing_means(analysis, words)}.")]
    words = Words("all_runs")
    gaps = opening.gaps(analysis, words, row_at(all_runs(analysis.study), 0))
    told += [words.sentence(f"{gaps}; these count neither as failed nor as finished.")] if gaps else []
    share = dev_set.in_short(analysis)
    return [*told, share] if share else told


def _versions(analysis: Analysis) -> str:
    """`, torch 2.13.0, transformers 5.24.0, on NVIDIA H100`, of what all runs have in common."""
    words = []
    for column, name in (("torch", "torch "), ("transformers", "transformers "), ("device_name", "on ")):
        values = set(analysis.runs[column].dropna())
        words += [f"{name}{values.pop()}"] if len(values) == 1 else []
    return "".join(f", {text}" for text in words)


def badge(analysis: Analysis) -> str:
    """The verdict in a few words, as an SVG of the usual size."""
    cells = analysis.cells
    judged, failed = int(cells["judged"].sum()), int(cells["failed"].fillna(0).sum())
    verdict = str(headline.verdict(analysis)).lower()
    state = "not judged" if not judged else "no failed run" if not failed else "some runs fail"
    state = "unstable" if "no run succeeded" in verdict else state
    state = "unstable" if "unstable" in verdict and "no single recipe is shown" not in verdict else state
    text = f"{failed} of {judged} runs failed" if judged else "failures not judged"
    left, right = 62, 7 * len(text) + 12
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="20" role="img" '
        f'aria-label="stability: {escape(text)}"><title>stability: {escape(text)}</title>'
        f'<rect width="{left}" height="20" fill="#444"/><rect x="{left}" width="{right}" height="20" '
        f'fill="{_COLOURS[state]}"/><g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">'
        f'<text x="7" y="14">stability</text><text x="{left + 6}" y="14">{escape(text)}</text></g></svg>\n'
    )
