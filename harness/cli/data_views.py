"""How a task's data look on a screen."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from harness.cli.console import Console
from harness.cli.progress import plain
from harness.common.metrics import words as metric_words
from harness.common.text import count_noun
from harness.data import vocabulary

if TYPE_CHECKING:
    from harness.data import summary as describing


def _splits(described: describing.Described) -> dict[str, describing.SplitSummary]:
    return {"train": described.train, "dev": described.dev} | (
        {} if described.test is None else {"test": described.test}
    )


_MOST_LABELS = 12


def print_data(out: Console, described: describing.Described) -> None:
    """A task's data on a screen: the splits side by side, the lengths as bars, then what is odd, with its lines."""
    tokens = described.kind == "tokens"
    several = {"tokens": "tags", "labels": "labels, any number a text"}.get(described.kind, "classes")
    kind = "a regression" if described.classes is None else f"{described.classes} {several}"
    if described.kind == "completion":
        kind = "completions" if not described.classes else f"completions, {described.classes} choices"
    if described.kind == "choice":
        kind = f"multiple choice, {described.classes} choices"
    if described.kind == "span":
        kind = "answers in a context"
    texts = {
        "completion": "prompts with answers", "tokens": "sentences", "choice": "texts with choices",
        "span": "questions with contexts",
    }.get(described.kind, "pairs of texts" if described.pairs else "single texts")  # fmt: skip
    out.print(Text.assemble((plain(described.name), "bold"), f"  {kind}, {texts}, {metric_words(described.metric)}"))
    splits = _splits(described)
    width = 16 if described.test is None else 8  # of a bar
    for name, split in splits.items():
        out.print(Text(f"{name:5}  {plain(split.source)}", style="dim"), soft_wrap=True)
    out.print()
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for name in splits:
        table.add_column(name, justify="right")
        table.add_column("", min_width=width)

    def row(name: str | Text, shown: Iterable[str], bars: Iterable[str] = itertools.repeat("")) -> None:
        table.add_row(name, *itertools.chain.from_iterable(zip(shown, bars, strict=False)))

    row("examples", [f"{split.examples:,}" for split in splits.values()])
    for label in list(described.train.labels or ())[:_MOST_LABELS]:
        many = described.kind == "labels"  # whose shares are of the texts
        shares = [
            counts[label] / (split.examples if many else sum(counts.values()))
            for split in splits.values()
            if (counts := split.labels)
        ]
        row(
            Text(plain(label)[:30]),
            [f"{100 * share:.1f} %" for share in shares],
            [_bar(share, width) for share in shares],
        )
    if (more := len(described.train.labels or ()) - _MOST_LABELS) > 0:
        row(f"… and {more} more", [""])
    if described.train.label_range:
        ranges = [split.label_range or (math.nan,) * 3 for split in splits.values()]
        row("labels", [f"{low:g} to {high:g}, mean {mean:.3g}" for low, mean, high in ranges])
    for unit in ("characters", "tokens") if described.unit == "characters" else ("words", "characters", "tokens"):
        lengths = [getattr(split, unit) for split in splits.values()]
        if None not in lengths:
            shown = [f"{split.median:.0f} · {split.p95:.0f} · {split.longest}" for split in lengths]
            row(Text.assemble(unit, (", median · 95 % · longest", "dim")), shown)
    if described.train.cut is not None:
        cuts = [f"{split.cut} ({100 * (split.cut or 0) / split.examples:.1f} %)" for split in splits.values()]
        what = {"completion": "prompts cut", "span": "read in windows"}.get(described.kind, "cut")
        row(f"{what} at {described.max_length} tokens", cuts)
    if described.train.unknown is not None:
        row("unknown tokens", [vocabulary.percent(split.unknown or 0.0) for split in splits.values()])
    out.print_table(table)
    for name, split in splits.items():
        if tokens and split.cut and split.tokens and name != "train":
            sentences = count_noun(split.cut, f"{name} sentence")
            out.print(
                f"{sentences} longer than {described.max_length} tokens; a sweep refuses to score words that are cut: "
                f"raise max_length to {split.tokens.longest}, or part them.", soft_wrap=True,
            )  # fmt: skip
    always = {
        "span": "answering nothing, or the commonest dev answer,",
        "choice": "answering the most frequent position",
        "labels": "giving the best set of labels",
    }
    usual = (
        "the mean of the dev labels" if described.classes is None else "O" if tokens else "the most frequent dev label"
    )
    what = always.get(described.kind, f"answering {usual}")
    if described.majority is None:
        out.print("A run is held against the untouched model, which is scored when a sweep starts.\n")
    else:
        out.print(f"Always {what} scores {described.majority:.4f}.\n")
    most = max((split.unknown or 0.0 for split in splits.values()), default=0.0)
    if most > vocabulary.WARN_ABOVE:
        refused = most > vocabulary.REFUSE_ABOVE
        then = "; training refuses that without task.allow_unknown" if refused else ""
        out.print(f"Warning: {vocabulary.percent(most)} of the tokens are unknown to the tokenizer{then}.\n")
    for note in described.notes:
        out.print(Text(plain(note), style="bold"), soft_wrap=True)
    if described.notes:
        out.print()
    out.print(_lengths_table(described))
    out.print()
    _print_odd(out, described)
    out.print(Text("Longest", style="bold"))
    for name, split in splits.items():
        for example in split.longest[:3]:
            length = f"{example.length} {described.unit if example.length != 1 else described.unit[:-1]}"
            _print_excerpt(out, f"{name} {split.unit} {example.number} ({example.label}, {length}): {example.begins}")
    out.print()


def _bar(share: float, width: int) -> str:
    """A bar in eighths of a character; a share of 1 is as wide as `width`."""
    eighths = round(8 * width * share)
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def _lengths_table(described: describing.Described) -> Table:
    """The histogram: a line a bar, shares of each split; what is cut for certain is dimmed."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(described.unit, justify="right")
    for name in _splits(described):
        table.add_column(name, justify="right")
        table.add_column("", min_width=24)
    sizes = [split.examples for split in _splits(described).values()]
    bars = [
        [count / size for count, size in zip((length_bin.train, length_bin.dev, length_bin.test), sizes, strict=False)]
        for length_bin in described.histogram
    ]
    largest = max(map(max, bars))
    for length_bin, shares in zip(described.histogram, bars, strict=True):
        name = (
            f"{length_bin.low}–{length_bin.high}"
            if length_bin.high is not None and length_bin.high > length_bin.low
            else f"{length_bin.low}"
        )
        row = [f"{name} and more" if length_bin.high is None else name]
        for share in shares:
            row += [f"{100 * share:.1f} %", _bar(share / largest, 24)]
        cut = described.unit == "tokens" and length_bin.low > described.max_length
        table.add_row(*row, style="dim" if cut else None)
    return table


def _print_excerpt(out: Console, line: str) -> None:
    out.print(Text(f"  {plain(line)}"), no_wrap=True, overflow="ellipsis")


def _print_odd(out: Console, described: describing.Described) -> None:
    """Duplicates, leaks and empty texts: counts, and the first of them with their numbers."""
    splits = _splits(described)

    def listed(repeated: tuple[describing.Repeated, ...]) -> None:
        for example in repeated:
            where = [
                f"{name} {split.unit} {', '.join(map(str, numbers[:4]))}{', …' if len(numbers) > 4 else ''}"
                for (name, split), numbers in zip(
                    splits.items(), (example.train, example.dev, example.test), strict=False
                )
                if numbers
            ]
            noun = "answer" if described.kind in ("completion", "span") else "label"
            several = len(example.labels) > 1
            labels = f"{noun}s {', '.join(example.labels)}" if several else f"{noun} {example.labels[0]}"
            _print_excerpt(out, f"{' = '.join(where)} ({labels}): {example.begins}")

    out.print(Text("Duplicates and leaks", style="bold"))
    for name, split in splits.items():
        again = f"{count_noun(split.repeats, 'example')} of {split.examples:,} with texts that stood before"
        other = f"; {count_noun(split.disagreeing, 'text')} with different labels" if split.disagreeing else ""
        out.print(f"{name}: {again if split.repeats else f'all {split.examples:,} examples differ'}{other}.")
        listed(split.repeated)
    leaks = [("dev", "training", described.leaks, described.leaks_disagreeing, described.leaked)]
    for source, leaked in (("training", described.test_leaks_of_train), ("dev", described.test_leaks_of_dev)):
        if leaked is not None:
            leaks.append(("test", source, leaked.examples, leaked.disagreeing, leaked.first))
    for into, source, examples, disagreeing, first in leaks:
        size = splits[into].examples
        if examples:
            share = f"{examples} of {size:,} {into} examples ({100 * examples / size:.1f} %)"
            verb = "stands" if examples == 1 else "stand"
            out.print(f"Leaks: {share} {verb} in the {source} split too, {disagreeing} with another label.")
        else:
            out.print(f"Leaks: none of the {size:,} {into} examples stands in the {source} split.")
        listed(first)
    for name, split in splits.items():
        if split.empty:
            lines = ", ".join(map(str, split.empty[:10])) + (", …" if len(split.empty) > 10 else "")
            refused = "; training refuses them" if split.unit == "line" else ""
            out.print(
                f"{name}: {count_noun(len(split.empty), 'example')} with an empty text, {split.unit} {lines}{refused}."
            )
    out.print()
