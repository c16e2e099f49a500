"""Commands that set one figure or one table of a report for a paper."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.text import Text

from harness import api
from harness.cli.console import Console
from harness.cli.options import Overrides, ProfileName, Results
from harness.cli.status_views import end_with_set_aside
from harness.common.errors import HarnessError
from harness.common.files import write_text
from harness.common.text import without_controls

_Sweep = Annotated[
    str | None, typer.Argument(metavar="SWEEP|DIR", help="A sweep, results folder or import.", show_default=False)
]
_Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="FILE", help="Where to; its ending may say the format.", show_default=False),
]


def figure(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="The figure; without one they are listed.", show_default=False)
    ] = None,
    sweep: _Sweep = None,
    width: Annotated[
        str | None, typer.Option(metavar="LENGTH", help="3.25in, 8.2cm, 82mm or 240pt.", show_default=False)
    ] = None,
    font_size: Annotated[
        float | None, typer.Option("--font-size", metavar="POINTS", help="Of most texts; notes are a little smaller.")
    ] = None,
    font: Annotated[str | None, typer.Option("--font", metavar="NAME", help="An installed font.")] = None,
    title: Annotated[
        bool, typer.Option("--title/--no-title", help="A line above that says what is shown; a caption says it better.")
    ] = False,
    form: Annotated[Literal["pdf", "svg", "png"] | None, typer.Option("--format", help="Default: pdf.")] = None,
    venue: Annotated[
        str | None,
        typer.Option("--for", metavar="VENUE", help="acl, acl-wide, neurips, icml or icml-wide: their width and font."),
    ] = None,
    out: _Out = None,
    profile: ProfileName = None,
    overrides: Overrides = [],
    results: Results = Path("results"),
) -> None:
    """Set one figure of a report for a paper: its width, fonts and format; text stays text."""
    from harness.report import named_figures

    if name is None:
        print(named_figures.listing())
        return
    chosen = named_figures.figure_named(name)
    sheet, notes = named_figures.sheet_for(venue, width, font_size, font, title)
    opened = api.open(_required(sweep, f"harness figure {name}"), set=overrides, profile=profile, results=results)
    path = out or Path(f"{chosen.name}.{form or 'pdf'}")
    drawn = named_figures.write(opened.analysis, chosen, sheet, path, form)
    messages = Console(stderr=True)
    for note in (*notes, *named_figures.notes(opened.study, sheet)):
        messages.print(Text(note), soft_wrap=True)
    print(f"Written: {path}")
    print(without_controls(f"For its caption: {named_figures.caption(opened.study, chosen, drawn)}"))
    end_with_set_aside(opened.study, messages, "the figure")


def table(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="The table; without one they are listed.", show_default=False)
    ] = None,
    sweep: _Sweep = None,
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,…",
            help="Its numbers, by heading or by the name in its CSV file, or all; default: what fits a page.",
        ),
    ] = None,
    form: Annotated[
        Literal["latex", "markdown", "csv"] | None, typer.Option("--format", help="Default: latex, with booktabs.")
    ] = None,
    caption: Annotated[str | None, typer.Option(help="Instead of the report's.", show_default=False)] = None,
    out: _Out = None,
    profile: ProfileName = None,
    overrides: Overrides = [],
    results: Results = Path("results"),
) -> None:
    """Print one table of a report for a paper, or write it to a file."""
    from harness.report import files, named_tables

    if name is None:
        print(named_tables.listing())
        return
    spec = named_tables.table_named(name)
    opened = api.open(_required(sweep, f"harness table {name}"), set=overrides, profile=profile, results=results)
    chosen = form or named_tables.format_of(out)
    wanted: Sequence[str] | None = None
    if columns is None:
        wanted, caption = named_tables.usual_columns(spec, chosen, caption)
    elif columns.strip().lower() != "all":
        wanted = [column.strip() for column in columns.split(",") if column.strip()]
    text = named_tables.text_of(opened.analysis, spec, wanted, chosen, caption)
    if chosen == "latex" and (note := named_tables.too_wide(opened.analysis, spec, wanted)):
        Console(stderr=True).print(Text(without_controls(note)), soft_wrap=True)
    if chosen == "latex" and (letters := files.beyond_latin(text.partition("\n")[2])):
        note = f"pdfLaTeX can't set {letters[:12]}: use LuaLaTeX or XeLaTeX, with a font that has them."
        Console(stderr=True).print(Text(without_controls(note)), soft_wrap=True)
    if out is None:
        print(without_controls(text), end="")
    else:
        write_text(out, text)
        print(f"Written: {out}")
    end_with_set_aside(opened.study, Console(stderr=True), "the table")


def _required(sweep: str | None, words: str) -> str:
    if sweep is None:
        raise HarnessError("missing SWEEP: whose runs?", fix=f"Name it, as in: {words} rte_lr")
    return sweep
