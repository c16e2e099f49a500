"""What all commands print with: no text of a file moves the cursor, colours or renames a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import rich.console
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table

from harness.common.text import without_controls


class Console(rich.console.Console):
    """Rich's console; what is printed can hold no control characters beside those that style it."""

    def __init__(self, **options: Any) -> None:
        """Take rich's options; nothing in a text is highlighted or taken for markup."""
        super().__init__(**{"highlight": False, "markup": False, "emoji": False} | options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The pieces of what is printed, cleaned."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(without_controls(segment.text), segment.style)

    def print_table(self, table: Table) -> None:
        """Print a table at its whole width: in a narrow terminal its lines go on, where rich would cut names off."""
        least = self.width
        self.width = max(least, self.measure(table, options=self.options.update(max_width=10_000)).maximum)
        try:
            self.print(table, crop=False)
        finally:
            self.width = least
