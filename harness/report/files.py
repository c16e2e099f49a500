"""Tables as files: CSV and JSON for programs, Markdown and LaTeX for people."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence

import pandas as pd
from markupsafe import Markup, escape

from harness.report.table import TextTable

_FORMULA = set("=+-@\t\r\n＝＋－＠")  # how a formula starts; spreadsheets take the full-width signs too


def json_value(value: object) -> object:
    """A table's value as JSON has it: plain numbers, None for what is not known."""
    if value is pd.NA:
        return None
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and math.isinf(value):
        return "inf" if value > 0 else "-inf"  # an odds ratio can be: JSON has no word for it
    return None if isinstance(value, float) and math.isnan(value) else value


def json_rows(table: pd.DataFrame) -> list[dict[str, object]]:
    """A table as JSON has it, a row each."""
    return [{str(key): json_value(value) for key, value in row.items()} for row in table.to_dict("records")]


def csv(table: pd.DataFrame, floats: str | None = None) -> str:
    """A table as CSV; texts that a spreadsheet would run as a formula get an apostrophe before them (OWASP)."""

    def safe(value: object) -> object:
        if not isinstance(value, str):
            return value
        line = (
            re.sub("\r\n?", "\n", value) if "\r" in value else value
        )  # pandas puts no quotes about a lone \r, which ends a line for some
        return f"'{line}" if line[:1] in _FORMULA else line

    guarded = table.rename(columns=safe)
    for place, dtype in enumerate(guarded.dtypes):
        if pd.api.types.is_object_dtype(dtype) or pd.api.types.is_string_dtype(dtype):
            guarded.isetitem(place, [safe(value) for value in guarded.iloc[:, place]])
    return str(guarded.to_csv(index=False, lineterminator="\n", float_format=floats))


def markdown_text(text: object) -> Markup:
    """Text as Markdown shows it: no markup of its own taken over, no cell or line broken."""
    plain = str(escape(" ".join(str(text).split()))).replace("&#39;", "'").replace("&#34;", '"')
    return Markup(re.sub(r"([|\\`*\[\]~$])", r"\\\1", plain).replace("_", "\\_"))


def markdown(table: TextTable) -> str:
    """A table as Markdown, with its caption above."""

    def line(texts: Sequence[str]) -> str:
        return f"| {' | '.join(texts)} |"

    rule = "|" + "|".join(" ---: " if right else " --- " for right in table.numeric) + "|"
    rows = [line([markdown_text(text) for text in row]) for row in (table.header, *table.rows)]
    return "\n".join([f"{markdown_text(table.caption)}", "", rows[0], rule, *rows[1:]]) + "\n"


_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "–": "--", "—": "---", "−": "$-$", "×": r"$\times$", "·": r"$\cdot$", "±": r"$\pm$", "∞": r"$\infty$",
    "²": r"\textsuperscript{2}", "³": r"\textsuperscript{3}", "µ": r"$\mu$", "≥": r"$\geq$", "≤": r"$\leq$",
    "≠": r"$\neq$", "≈": r"$\approx$", "→": r"$\rightarrow$", "…": r"\ldots{}", '"': "''", "“": "``", "”": "''",
    "‘": "`", "’": "'", "|": r"\textbar{}", "√": r"$\surd$", "°": r"$^\circ$",
}  # fmt: skip
_GREEK = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lamda mu nu xi pi rho sigma tau upsilon phi chi psi omega"
)
for _name in _GREEK.split():
    _TEX[unicodedata.lookup(f"GREEK SMALL LETTER {_name}")] = f"$\\{_name.replace('lamda', 'lambda')}$"
_LATIN = 0x24F  # pdfLaTeX sets letters up to here by itself


def latex_text(text: object) -> str:
    """Text as LaTeX sets it: nothing in it is a command."""
    plain = unicodedata.normalize("NFC", " ".join(str(text).split()))
    return "".join(_TEX.get(letter, letter) for letter in plain)


def beyond_latin(text: str) -> str:
    """The letters of a LaTeX text that pdfLaTeX can't set: 日本語."""
    return "".join(dict.fromkeys(letter for letter in text if ord(letter) > _LATIN))


def latex_float(table: TextTable) -> str:
    r"""A table with its caption, a `table` that floats, for a paper that loads booktabs."""
    _, *tabular = latex(table).splitlines()
    start = [_needs("".join([latex_text(table.caption), *tabular])), "\\begin{table}[t]", "\\centering"]
    label = re.sub(r"[^a-z0-9]+", "-", table.name.lower())
    end = [f"\\caption{{{latex_text(table.caption)}.}}", f"\\label{{tab:{label}}}", "\\end{table}", ""]
    return "\n".join([*start, *tabular, *end])


def latex(table: TextTable) -> str:
    r"""A table for `\input` into a paper that loads booktabs."""

    def line(texts: Sequence[str]) -> str:
        return " & ".join(re.sub(r"([][*])", r"{\1}", latex_text(text)) for text in texts) + r" \\"

    columns = "".join("r" if right else "l" for right in table.numeric)
    rows = [line(row) for row in table.rows]
    head = line(table.header)
    needs = f"{_needs(''.join([head, *rows]))} {' '.join(table.caption.split())}"
    start = [needs, f"\\begin{{tabular}}{{{columns}}}", "\\toprule"]
    return "\n".join([*start, head, "\\midrule", *rows, "\\bottomrule", "\\end{tabular}", ""])


def _needs(text: str) -> str:
    """What a paper must load and be set with, as a comment."""
    letters = beyond_latin(text)
    return (
        f"% needs booktabs, and LuaLaTeX or XeLaTeX with a font that has {letters}." if letters else "% needs booktabs."
    )
