"""How a task's data look on a screen."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.cli.progress import plain
from harness.common.text import count_noun
from harness.data import vocabulary

if TYPE_CHECKING:
    from harness.data import summary as describing


def _splits(found: describing.Described) -> dict[str, describing.SplitSummary]:
    return {"train": found.train, "dev": found.dev} | ({} if found.test is None else {"test": found.test})


_MOST_LABELS = 12


def print_data(out: Console, found: describing.Described) -> None:
    """A task's data on a screen: the splits side by side, the lengths as bars, then what is odd, with its lines."""
    tokens = found.kind == "tokens"
    kind = "a regression" if found.classes is None else f"{found.classes} {'tags' if tokens else 'classes'}"
    texts = "sentences" if tokens else "pairs of texts" if found.pairs else "single texts"
    out.print(Text.assemble((plain(found.name), "bold"), f"  {kind}, {texts}, {found.metric.replace('_', ' ')}"))
    splits = _splits(found)
    width = 16 if found.test is None else 8  # of a bar
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
    for label in list(found.train.labels or ())[:_MOST_LABELS]:
        shares = [counts[label] / sum(counts.values()) for split in splits.values() if (counts := split.labels)]
        row(
            Text(plain(label)[:30]),
            [f"{100 * share:.1f} %" for share in shares],
            [_bar(one, width) for one in shares],
        )
    if (more := len(found.train.labels or ()) - _MOST_LABELS) > 0:
        row(f"… and {more} more", [""])
    if found.train.label_range:
        ranges = [split.label_range or (math.nan,) * 3 for split in splits.values()]
        row("labels", [f"{low:g} to {high:g}, mean {mean:.3g}" for low, mean, high in ranges])
    for unit in ("characters", "tokens") if found.unit == "characters" else ("words", "characters", "tokens"):
        lengths = [getattr(split, unit) for split in splits.values()]
        if None not in lengths:
            row(Text.assemble(unit, (", median · 95 % · longest", "dim")),
                [f"{one.median:.0f} · {one.p95:.0f} · {one.longest}" for one in lengths])  # fmt: skip
    if found.train.cut is not None:
        cuts = [f"{split.cut} ({100 * (split.cut or 0) / split.examples:.1f} %)" for split in splits.values()]
        row(f"cut at {found.max_length} tokens", cuts)
    if found.train.unknown is not None:
        row("unknown tokens", [vocabulary.percent(split.unknown or 0.0) for split in splits.values()])
    out.print(table)
    for name, split in splits.items():
        if tokens and split.cut and split.tokens and name != "train":
            sentences = count_noun(split.cut, f"{name} sentence")
            out.print(
                f"{sentences} longer than {found.max_length} tokens; a sweep refuses to score words that are cut: "
                f"raise max_length to {split.tokens.longest}, or part them.", soft_wrap=True,
            )  # fmt: skip
    what = "the mean of the dev labels" if found.classes is None else "O" if tokens else "the most frequent dev label"
    out.print(f"Always answering {what} scores {found.majority:.4f}.\n")
    most = max((split.unknown or 0.0 for split in splits.values()), default=0.0)
    if most > vocabulary.WARN_ABOVE:
        refused = most > vocabulary.REFUSE_ABOVE
        then = "; training refuses that without task.allow_unknown" if refused else ""
        out.print(f"Warning: {vocabulary.percent(most)} of the tokens are unknown to the tokenizer{then}.\n")
    for note in found.notes:
        out.print(Text(plain(note), style="bold"), soft_wrap=True)
    if found.notes:
        out.print()
    out.print(_lengths_table(found))
    out.print()
    _print_odd(out, found)
    out.print(Text("Longest", style="bold"))
    for name, split in splits.items():
        for example in split.longest[:3]:
            length = f"{example.length} {found.unit if example.length != 1 else found.unit[:-1]}"
            _print_excerpt(out, f"{name} {split.unit} {example.number} ({example.label}, {length}): {example.begins}")
    out.print()


def _bar(share: float, width: int) -> str:
    """A bar in eighths of a character; a share of 1 is as wide as `width`."""
    eighths = round(8 * width * share)
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def _lengths_table(found: describing.Described) -> Table:
    """The histogram: a line a bar, shares of each split; what is cut for certain is dimmed."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(found.unit, justify="right")
    for name in _splits(found):
        table.add_column(name, justify="right")
        table.add_column("", min_width=24)
    sizes = [split.examples for split in _splits(found).values()]
    bars = [
        [count / size for count, size in zip((one.train, one.dev, one.test), sizes, strict=False)]
        for one in found.histogram
    ]
    largest = max(map(max, bars))
    for one, shares in zip(found.histogram, bars, strict=True):
        name = f"{one.low}–{one.high}" if one.high is not None and one.high > one.low else f"{one.low}"
        row = [f"{name} and more" if one.high is None else name]
        for share in shares:
            row += [f"{100 * share:.1f} %", _bar(share / largest, 24)]
        cut = found.unit == "tokens" and one.low > found.max_length
        table.add_row(*row, style="dim" if cut else None)
    return table


def _print_excerpt(out: Console, line: str) -> None:
    out.print(Text(f"  {plain(line)}"), no_wrap=True, overflow="ellipsis")


def _print_odd(out: Console, found: describing.Described) -> None:
    """Duplicates, leaks and empty texts: counts, and the first of them with their numbers."""
    splits = _splits(found)

    def listed(repeated: tuple[describing.Repeated, ...]) -> None:
        for one in repeated:
            where = [
                f"{name} {split.unit} {', '.join(map(str, numbers[:4]))}{', …' if len(numbers) > 4 else ''}"
                for (name, split), numbers in zip(splits.items(), (one.train, one.dev, one.test), strict=False)
                if numbers
            ]
            labels = f"labels {', '.join(one.labels)}" if len(one.labels) > 1 else f"label {one.labels[0]}"
            _print_excerpt(out, f"{' = '.join(where)} ({labels}): {one.begins}")

    out.print(Text("Duplicates and leaks", style="bold"))
    for name, split in splits.items():
        again = f"{count_noun(split.repeats, 'example')} of {split.examples:,} with texts that stood before"
        other = f"; {count_noun(split.disagreeing, 'text')} with different labels" if split.disagreeing else ""
        out.print(f"{name}: {again if split.repeats else f'all {split.examples:,} examples differ'}{other}.")
        listed(split.repeated)
    leaks = [("dev", "training", found.leaks, found.leaks_disagreeing, found.leaked)]
    for source, one in (("training", found.test_leaks_of_train), ("dev", found.test_leaks_of_dev)):
        if one is not None:
            leaks.append(("test", source, one.examples, one.disagreeing, one.first))
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
