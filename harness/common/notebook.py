"""What a notebook shows: a page of a few sentences and a table, and figures that pyplot does not know."""

from __future__ import annotations

import html
import importlib
import sys
from collections.abc import Sequence
from typing import Any


def shell() -> Any | None:
    """The shell of the notebook that this runs in; None elsewhere. IPython is not imported for it."""
    python = sys.modules.get("IPython")
    running = None if python is None else python.get_ipython()
    return running if running is not None and "IPKernelApp" in running.config else None


def show_figures() -> None:
    """Have a notebook draw figures that pyplot does not know, which those of the report are."""
    running = shell()
    if running is not None:
        importlib.import_module("IPython.core.pylabtools").select_figure_formats(running, {"png"})


def page(title: str, sentences: Sequence[str], header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A title, a few sentences and a table as HTML.

    Args:
        title: the first paragraph, in bold.
        sentences: one paragraph each.
        header: the table's columns; underscores become spaces.
        rows: the table's texts, as many a row as there are columns.
    """
    parts = [f"<p><b>{html.escape(title)}</b></p>", *(f"<p>{html.escape(sentence)}</p>" for sentence in sentences)]
    head = "".join(f"<th>{html.escape(name.replace('_', ' '))}</th>" for name in header)
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(text)}</td>' for text in row)}</tr>" for row in rows)
    return f"{''.join(parts)}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
