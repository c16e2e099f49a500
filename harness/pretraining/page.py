"""What is said of a pretrained model in its folder: its loss by step, what it fills in, what it was made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.common.files import write_text
from harness.pretraining.corpus import TextSource
from harness.pretraining.settings import Settings, option

if TYPE_CHECKING:
    from harness.pretraining.objectives import LanguageScore, MaskedExample


@dataclass(frozen=True)
class Facts:
    """What was read: sentences (or pairs) trained on and held out, and what the network had to draw afresh."""

    sources: tuple[TextSource, ...]
    trained: int
    held_out: int
    tokens: int  # of the text, trained on
    unknown: float | None  # the share of tokens that are none; None where it can't be
    drawn: tuple[str, ...]  # parameters of the language model's head that the folder had not


@dataclass(frozen=True, eq=False)
class Made:
    """A pretrained model and how it came about."""

    folder: Path
    network: str  # as "BERT, 4 layers × 256, 4 heads"
    parameters: int
    settings: Settings
    facts: Facts
    losses: NDArray[np.float64]  # [steps], nats
    held_out: tuple[tuple[int, LanguageScore], ...]
    examples: tuple[MaskedExample, ...]
    wall_seconds: float
    device: str


def write(folder: Path, made: Made) -> None:
    """Write pretrain.md and the loss curve pretrain.png into a folder."""
    from harness.report.figures import curves, sheet

    title = f"{made.folder.name}: {made.network}"
    scores = [(step, score.total) for step, score in made.held_out]
    figure = curves.pretraining(title, made.losses, scores)
    figure.savefig(folder / "pretrain.png", dpi=sheet.DPI, metadata={"Software": None})
    write_text(folder / "pretrain.md", page(made))


def page(made: Made) -> str:
    """The report in Markdown."""
    settings, facts = made.settings, made.facts
    causal = settings.objective == "causal"
    start = "from random weights" if settings.start is None else f"going on from `{settings.start}`"
    parts = [
        f"# {_cell(made.folder.name)}, pretrained",
        f"{made.network}, {made.parameters:,} parameters, {start}; {_objective(settings)}; {settings.steps:,} steps of "
        f"{settings.batch_size}, seed {settings.seed}; {made.wall_seconds:,.0f} s on {made.device}.",
        *_scored(made),
        "![Training loss and loss on held-out texts by step](pretrain.png)",
    ]
    if facts.drawn:
        parts.append(f"The folder had no {', '.join(f'`{name}`' for name in facts.drawn)}: drawn afresh by the seed.")
    if made.examples:
        heads = ("the text begins", "went on", "sampled") if causal else ("held-out text", "stood there", "likeliest")
        parts += ["## On held-out texts", _table(heads, [_example(example) for example in made.examples])]
    parts += ["## What it was made of", _read(settings, facts)]
    if facts.sources:
        parts.append(_table(("file", "SHA-256"), [(source.path, source.sha256) for source in facts.sources]))
    shown = [(option(name), _value(value)) for name, value in settings if value is not None and name != "texts"]
    parts += [
        _table(("setting", "value"), shown),
        "In a sweep: `model: {name: " + made.folder.name + ", folder: " + str(made.folder) + "}`.",
    ]
    return "\n\n".join(parts) + "\n"


def _objective(settings: Settings) -> str:
    if settings.objective == "causal":
        return "causal language modelling"
    whole = ", whole words" if settings.whole_words else ""
    sentence = f"masked language modelling ({'20' if settings.rebuilds else '15'} % of the tokens{whole})"
    return f"{sentence} and next-sentence prediction" if settings.next_sentence else sentence


def _scored(made: Made) -> list[str]:
    """The held-out scores before and after, where there are any."""
    if not made.held_out:
        return ["No text was held out, so that nothing is known of how well it predicts new ones."]
    token = "a token" if made.settings.objective == "causal" else "a masked token"
    (_, before), (_, after) = made.held_out[0], made.held_out[-1]
    sentence = (
        f"On held-out texts: loss **{after.loss:.3f}** nats {token} (perplexity {after.perplexity:,.2f}; before "
        f"training {before.loss:.3f}, {before.perplexity:,.2f}), {after.accuracy:.1%} predicted rightly (before "
        f"{before.accuracy:.1%})"
    )
    if after.next_accuracy is not None and before.next_accuracy is not None:
        sentence += (
            f", {after.next_accuracy:.1%} of the pairs told apart (before {before.next_accuracy:.1%}; half are true)"
        )
    return [f"{sentence}."]


def _example(example: MaskedExample) -> tuple[str, str, str]:
    guesses = (text if share is None else f"{text} ({_share(share)})" for text, share in example.found)
    return example.shown, example.stood, " / ".join(guesses)


def _share(share: float) -> str:
    return f"{share:.2f}" if share >= 0.005 else "under 0.01"


def _read(settings: Settings, facts: Facts) -> str:
    if settings.rebuilds:
        pairs = f"{facts.held_out:,} others held out"
        if settings.objective == "causal":
            what = f"{facts.trained:,} texts of the embedded language, {facts.held_out:,} entailed pairs held out"
        else:
            what = f"{facts.trained:,} entailed pairs of the embedded language, {pairs}"
    else:
        what = f"{facts.trained:,} sentences, {facts.held_out:,} others held out by a hash of their text"
    passes = settings.steps * settings.batch_size / facts.trained
    unknown = "" if facts.unknown is None else f", {facts.unknown:.2%} unknown tokens"
    return f"{what}; {facts.tokens:,} tokens{unknown}; about {passes:.1f} passes."


def _value(value: object) -> str:
    return ("on" if value else "off") if isinstance(value, bool) else str(value)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    """Text as it is, in one cell of a table: texts of one's own hold anything."""
    plain = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    return "".join(f"\\{character}" if character in r"\`*_[]<>|#" else character for character in plain)
