"""One self-contained page, Markdown, tables and figures of a study, written whole or not at all."""

from __future__ import annotations

import base64
import hashlib
import io
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import jinja2
import pandas as pd

from harness.analysis import mixed_runs
from harness.analysis.analyze import Analysis, analyse
from harness.common.files import naming, write_text
from harness.records.study import Study
from harness.report import (
    brush,
    headline,
    inline_svg,
    live_runs,
    named_figures,
    next_experiment,
    opening,
    page_notes,
    provenance,
    run_tables,
)
from harness.report.contents import CHAPTERS, TABLES, text_tables
from harness.report.figures import all_figures
from harness.report.figures.sheet import Sheet
from harness.report.files import csv, latex, markdown, markdown_text
from harness.report.glossary import glossary
from harness.report.headline import KeyFigure
from harness.report.run_tables import RunRow
from harness.report.section import FigureSpec, Section, Term
from harness.report.sections import best, spread
from harness.report.summary import summary
from harness.report.table import TextTable

LARGEST_INLINE_SVG = 150_000  # bytes, in short; the page carries larger figures as PNG, to stay light with many runs
LARGEST_SVG = 2_000_000  # bytes of a file that is worth shortening
INLINE_COLOURS = 64  # of such a PNG: a figure has a few, and shades of them at its edges
MOST_FAILED = 50  # failed runs listed with their chapter; the table of runs has them all
_TEMPLATE_FOLDER = Path(__file__).parent / "templates"
_TEMPLATES = {"index.html": "report.html.j2", "report.md": "report.md.j2"}
_STYLE, _SCRIPTS = "page.css", ("page.js", "marks.js", "brush.js")


@dataclass(frozen=True)
class Report:
    """What was written: the folder and its page, and what they were made from."""

    folder: Path
    page: Path
    analysis: Analysis

    @property
    def summary(self) -> dict[str, object]:
        """What `harness report --json` prints; made when asked for, for every table is in it."""
        return summary(self.analysis)


def write(study: Study, folder: Path, threshold: float | None = None) -> Report:
    """Write the report of a study into `folder`: page, Markdown, `tables/` and `figures/`.

    A report that is already there is replaced by two renames once the new one is whole, so that a killed report never
    leaves half a page.

    Args:
        study: What to report on, complete or not.
        folder: Where the report goes; its parents are made.
        threshold: A score worse than this counts as failed in one more definition beside ours.
    """
    return write_analysis(analyse(study, threshold), folder)


def write_analysis(analysis: Analysis, folder: Path) -> Report:
    """Write the report of a study whose tables are made, as `write`."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as beside:
        fresh = Path(beside) / "new"
        with naming(folder):
            _fill(fresh, analysis)
        if folder.exists():
            folder.rename(Path(beside) / "old")
        fresh.rename(folder)
    return Report(folder=folder, page=folder / "index.html", analysis=analysis)


def _fill(folder: Path, analysis: Analysis) -> None:
    """Write all files of a report into a new folder."""
    figures, files = folder / "figures", folder / "tables"
    for inner in (figures, files):
        inner.mkdir(parents=True)
    with all_figures.saved(analysis, figures):
        tables = _write_tables(files, analysis)
    page = _page(analysis, tables, figures)
    for name, template in _TEMPLATES.items():
        write_text(folder / name, _render(template, page))


def _write_tables(folder: Path, analysis: Analysis) -> dict[str, TextTable]:
    """Write every table that has something to show for people and programs; the former are given back."""
    tables = text_tables(analysis)
    for name, table in tables.items():
        write_text(folder / f"{name}.md", markdown(table))
        write_text(folder / f"{name}.tex", latex(table))
    for spec in (spec for spec in TABLES if spec.name in tables):
        data = _with_labels(analysis.study, spec.frame(analysis))
        write_text(folder / f"{spec.name}.csv", csv(data, "%.10g"))
    write_text(folder / "profile.csv", csv(analysis.profile, "%.10g"))
    write_text(folder / "runs.csv", run_tables.runs_csv(analysis))
    return tables


def _with_labels(study: Study, data: pd.DataFrame) -> pd.DataFrame:
    """A table of pairs of cells with their names for their numbers; any other table as it is."""
    if "reference" not in data or "cell" not in data:
        return data
    return data.assign(**{name: [study.cells[index].label for index in data[name]] for name in ("reference", "cell")})


# ------------------------------------------------------------------------------------------------- what the page shows


@dataclass(frozen=True)
class Picture:
    """One figure of the page: file name without ending, text for those who don't see it, and its data URI.

    `raster`: it is of pixels, which know no dark page. `narrow`: the data URI of the same for phones, if there is one.
    """

    name: str
    alt: str
    source: str
    raster: bool
    narrow: str = ""


@dataclass(frozen=True)
class FilledSection:
    """One section with what it has to show: sentences, the figure and how to read it, tables shown and folded."""

    anchor: str
    heading: str
    question: str
    sentences: tuple[str, ...]
    picture: Picture | None
    reading: str
    more: tuple[tuple[Picture, str], ...]  # further figures, and how to read them
    shown: tuple[TextTable, ...]
    folded: tuple[TextTable, ...]


@dataclass(frozen=True)
class FilledChapter:
    """A question of the page: the section that answers it, and those that are folded below."""

    anchor: str
    heading: str
    first: FilledSection | None
    folded: tuple[FilledSection, ...]


@dataclass(frozen=True)
class Page:
    """All that the templates show, as text."""

    title: str
    heading: str
    stand_in: str | None
    name: str
    verdict: str
    warnings: tuple[str, ...]  # beside which the verdict must be read
    cards: tuple[KeyFigure, ...]
    picture: Picture | None  # of the first screen, which no section shows again
    marked: str  # where the runs are in it, and their curves, for the page's script
    brush: str  # the runs as lines over their settings, for the page's script
    reading: str
    meaning: str  # of a failed run
    recommendation: str
    answer: tuple[str, ...]
    completeness: str
    score: str
    notes: tuple[str, ...]
    multiplicity: str
    chapters: tuple[FilledChapter, ...]
    next_words: str  # empty where there is no advice
    next_sweep: str  # the text of a sweep file; empty where none is proposed
    run_header: tuple[str, ...]
    runs: tuple[RunRow, ...]
    runs_left_out: int
    failed: tuple[RunRow, ...]
    failed_left_out: int
    failed_heading: str
    verdicts: tuple[str, ...]
    crashed: tuple[RunRow, ...]
    settings: tuple[TextTable, ...]
    provenance: TextTable
    sources: tuple[tuple[str, str], ...]
    glossary: tuple[Term, ...]


def _page(analysis: Analysis, tables: Mapping[str, TextTable], figures: Path) -> Page:
    study = analysis.study
    verdict = headline.verdict(analysis)
    recommendation = "".join(best.recommendation(analysis)[:1])
    stand_in = study.stand_in if study.stand_in and study.stand_in not in study.title else None
    runs, failed = run_tables.all_runs(analysis), run_tables.failed_runs(analysis)
    next_words, next_sweep = next_experiment.next_sweep(analysis) or (next_experiment.more_seeds(analysis), "")
    return Page(
        title=f"{study.title} ({stand_in})" if stand_in else study.title,
        heading=study.title,
        stand_in=stand_in,
        name=study.name,
        verdict=verdict,
        warnings=tuple(mixed_runs.warnings(study)),
        cards=headline.cards(analysis),
        picture=_first_picture(study, figures, verdict),
        marked=live_runs.data_of(analysis, figures),
        brush=brush.data_of(analysis),
        reading=spread.SECTION.figure.reading if spread.SECTION.figure else "",
        meaning=opening.failing_means(analysis),
        recommendation=recommendation,
        answer=tuple(sentence for sentence in opening.answer(analysis) if sentence != recommendation),
        completeness=page_notes.completeness(study),
        score=page_notes.about_scores(study),
        notes=(*page_notes.notes(study), *named_figures.notes(study, Sheet())),
        multiplicity=opening.multiplicity(analysis),
        chapters=_chapters(analysis, tables, figures, verdict),
        next_words=next_words,
        next_sweep=next_sweep,
        run_header=run_tables.header(study),
        runs=runs,
        runs_left_out=len(analysis.runs) - len(runs),
        failed=failed[:MOST_FAILED],
        failed_left_out=max(0, len(failed) - MOST_FAILED),
        failed_heading=run_tables.failed_heading(len(failed)),
        verdicts=tuple(sorted({run.verdict for run in runs})),
        crashed=run_tables.crashed_runs(analysis),
        settings=tuple(provenance.settings(sweep) for sweep in study.sweeps),
        provenance=provenance.provenance(study),
        sources=tuple(
            (sweep.folder_name, run_tables.without_folders(sweep.source)) for sweep in study.sweeps if sweep.source
        ),
        glossary=glossary(),
    )


def _chapters(
    analysis: Analysis, tables: Mapping[str, TextTable], figures: Path, verdict: str
) -> tuple[FilledChapter, ...]:
    """The chapters that have something to show."""

    def filled(section: Section | None) -> FilledSection | None:
        return None if section is None else _section(analysis, section, tables, figures, verdict)

    chapters = []
    for chapter in CHAPTERS:
        first = filled(chapter.first)
        folded = tuple(section for section in map(filled, chapter.folded) if section is not None)
        if first is not None or folded:
            chapters.append(FilledChapter(chapter.anchor, chapter.heading, first, folded))
    return tuple(chapters)


def _section(
    analysis: Analysis, section: Section, tables: Mapping[str, TextTable], figures: Path, verdict: str
) -> FilledSection | None:
    """A section with what it has to show; None where it has neither figure, table nor sentence."""
    sentences = tuple(section.sentences(analysis))
    on_top = section is spread.SECTION
    sentence = sentences[0] if sentences else verdict
    picture = None if on_top else _picture(analysis.study, section, section.figure, figures, sentence)
    further = ((_picture(analysis.study, section, spec, figures, sentence), spec) for spec in section.more_figures)
    more = tuple((shown, spec.reading) for shown, spec in further if shown is not None)
    specs = [spec for spec in section.tables if spec.name in tables]
    shown, folded = (tuple(tables[spec.name] for spec in specs if spec.folded == side) for side in (False, True))
    if not (picture or more or specs or sentences):
        return None
    reading = section.figure.reading if picture and section.figure else ""
    texts = (section.anchor, section.heading, section.question, sentences)
    return FilledSection(*texts, picture, reading, more, shown, folded)


def _picture(study: Study, section: Section, spec: FigureSpec | None, folder: Path, sentence: str) -> Picture | None:
    if spec is None:
        return None
    name = spec.name
    svg, png = (folder / f"{name}.{ending}" for ending in ("svg", "png"))
    if not svg.exists():
        return None
    alt = f"{section.heading} of {study.title}. {sentence}"
    source = inline_svg.data_uri(svg.read_text(encoding="utf-8")) if svg.stat().st_size <= LARGEST_SVG else ""
    raster = not source or len(source) > LARGEST_INLINE_SVG
    return Picture(name, alt, _inline_png(png) if raster else source, raster)


def _first_picture(study: Study, folder: Path, verdict: str) -> Picture | None:
    """The spread, with the drawing of it that phones show."""
    narrow = folder / f"{all_figures.NARROW}.svg"
    source = ""
    if narrow.exists():
        if narrow.stat().st_size <= LARGEST_SVG:  # in base64, for the sources of a picture end at a space
            svg = unquote(inline_svg.data_uri(narrow.read_text(encoding="utf-8")).partition(",")[2])
            source = f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"
        narrow.unlink()
    picture = _picture(study, spread.SECTION, spread.SECTION.figure, folder, verdict)
    if picture is None or picture.raster or len(source) > LARGEST_INLINE_SVG:
        return picture
    return replace(picture, narrow=source)


def _inline_png(path: Path) -> str:
    """A data URI of the PNG with few colours, a third of its size."""
    from PIL import Image  # it comes with matplotlib

    stream = io.BytesIO()
    with Image.open(path) as image:
        few = image.convert("RGB").quantize(INLINE_COLOURS, dither=Image.Dither.NONE)
    few.save(stream, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _render(template: str, page: Page) -> str:
    style, script = _style_and_script()
    shown = _templates().get_template(template)
    return shown.render(page=page, policy=_policy(), page_style=style, page_script=script)


@cache
def _templates() -> jinja2.Environment:
    """The templates, each of which is compiled once a process: reports of many studies are made in one."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATE_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["md"] = markdown_text
    return environment


@cache
def _style_and_script() -> tuple[str, str]:
    style, *scripts = ((_TEMPLATE_FOLDER / name).read_text(encoding="utf-8") for name in (_STYLE, *_SCRIPTS))
    return style, "".join(scripts)


@cache
def _policy() -> str:
    """What a browser may load for the page: its own style, script and images, named by their hashes, and nothing else.

    So nothing that stands in a study's texts can run or ask another machine for anything, whatever is overlooked.
    """
    rules = ["default-src 'none'", "img-src data:", "base-uri 'none'", "form-action 'none'"]
    for name, block in zip(("style", "script"), _style_and_script(), strict=True):
        digest = base64.b64encode(hashlib.sha256(f"\n{block}".encode()).digest()).decode()
        rules.append(f"{name}-src 'sha256-{digest}'")
    return "; ".join(rules)
