"""One figure of a report by its name: set for a paper, written as a file, with what belongs in its caption."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.common.errors import HarnessError, did_you_mean
from harness.common.text import count_noun
from harness.report.contents import SECTIONS
from harness.report.section import FigureSpec

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from harness.analysis.analyze import Analysis
    from harness.records.study import Study
    from harness.report.figures.sheet import Sheet

FORMATS = ("pdf", "svg", "png")
_INCHES = {"in": 1.0, "": 1.0, "cm": 1 / 2.54, "mm": 1 / 25.4, "pt": 1 / 72.27}  # TeX's points
_LENGTH = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(in|cm|mm|pt|)", re.ASCII)


def specs() -> dict[str, FigureSpec]:
    """The figures of a report by their names, in its order."""
    return {spec.name: spec for section in SECTIONS for spec in section.figures}


def figure_named(name: str) -> FigureSpec:
    """The figure of that name; raises HarnessError where there is none."""
    known = specs()
    if name not in known:
        raise unknown("figure", name, list(known))
    return known[name]


def unknown(thing: str, name: str, known: Sequence[str]) -> HarnessError:
    """What is said where a name is none of those known."""
    meant = did_you_mean(name.replace("-", "_"), known, cutoff=0.5)
    return HarnessError(f"unknown {thing} '{name}'{meant}", allowed=", ".join(known))


def listing() -> str:
    """All figures, a line each, for people who don't know the names."""
    wide = max(map(len, specs()))
    return "\n".join(f"{name:{wide}}  {spec.reading.partition('. ')[0].rstrip('.')}." for name, spec in specs().items())


def sheet_for(
    venue: str | None = None,
    width: str | float | None = None,
    font_size: float | None = None,
    font: str | None = None,
    title: bool = False,
) -> tuple[Sheet, list[str]]:
    """The sheet for a venue, with what differs from it; and notes on fonts that another one stands in for.

    Raises:
        HarnessError: no such venue, font or length.
    """
    from harness.report.figures import fonts
    from harness.report.figures.sheet import PRESETS, Sheet

    if venue is not None and venue not in PRESETS:
        raise unknown("venue", venue, list(PRESETS))
    sheet = replace(PRESETS[venue] if venue else Sheet(), title=title)
    if width is not None:
        sheet = replace(sheet, width=inches_of(width))
    if font_size is not None:
        if not 4 <= font_size <= 24:
            raise HarnessError("the font size must be between 4 and 24 points", got=font_size)
        sheet = replace(sheet, size=float(font_size))
    family, note = fonts.family_for(font or sheet.families[0])
    return replace(sheet, families=(family, *fonts.behind(family))), [note] if note else []


def inches_of(width: str | float) -> float:
    """A width as people write it, in inches."""
    text = str(width).strip().lower()
    parts = _LENGTH.fullmatch(text)
    inches = float(parts[1]) * _INCHES[parts[2]] if parts else 0.0
    if not 1.5 <= inches <= 20:
        raise HarnessError(
            "the width must be a length of 1.5 to 20 inches", got=f"'{width}'", allowed="3.25in, 8.2cm, 82mm, 240pt"
        )
    return inches


def draw(analysis: Analysis, spec: FigureSpec, sheet: Sheet, axes: Sequence[Axes] = ()) -> Figure:
    """The figure on a sheet; raises HarnessError where these runs have nothing to show in it."""
    from harness.report.figures import all_figures
    from harness.report.figures.sheet import requested

    with requested(replace(sheet, axes=tuple(axes))):
        figure = all_figures.maker(spec.function)(analysis)
    if figure is None:
        raise HarnessError(
            f"{analysis.study.name} has nothing for the figure {spec.name} to show",
            fix="See what the report has in its place",
        )
    return figure


def write(analysis: Analysis, spec: FigureSpec, sheet: Sheet, path: Path, form: str | None = None) -> Figure:
    """Write the figure to a file of the kind that its ending or `form` says, and return it."""
    from harness.report.figures import style

    ending = path.suffix.removeprefix(".").lower()
    if form is not None and ending and form != ending:
        raise HarnessError(f"{path} is to be written as {form}", fix=f"Name it {path.with_suffix('.' + form)}")
    if (form or ending) not in FORMATS:
        raise HarnessError("a figure is written as pdf, svg or png", got=ending or str(path))
    figure = draw(analysis, spec, sheet)
    style.save_as(figure, path if ending else path.with_suffix(f".{form}"))
    return figure


def notes(study: Study, sheet: Sheet) -> list[str]:
    """What is to be known of a figure: characters that no installed font has."""
    from harness.report.figures import fonts
    from harness.report.figures.sheet import texts_of

    characters = set("".join(texts_of(study)))
    families = (*sheet.families, *fonts.covering(characters, sheet.families))
    signs = "".join(chr(code) for code in sorted(fonts.lacking(characters, families)))
    if not signs:
        return []
    shown = signs if len(signs) <= 12 else f"{signs[:12]}…"
    return [f"No installed font has {shown}: figures show □ there. Installing one, such as Noto Sans, mends that."]


def caption(study: Study, spec: FigureSpec, figure: Figure) -> str:
    """What a figure shows, and of how much of the study, how to read it, and of a stand-in that it is one."""
    what = str(getattr(figure, "what", ""))
    shown = f"{what[:1].upper()}{what[1:]}. " if what else ""
    done = int((study.runs["status"] == "finished").sum())
    stand_in = f" {study.stand_in[:1].upper()}{study.stand_in[1:]}." if study.stand_in else ""
    return f"{shown}{spec.reading} {count_noun(done, 'run')}.{stand_in}"
