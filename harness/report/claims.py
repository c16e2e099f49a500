"""A claim is a number with its table and row; a sentence is text with the claims that it words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pandas as pd

from harness.common.text import Scalar
from harness.stats.estimate import NAN, Estimate

LEVEL = 0.05  # below which a p-value decides

Key = tuple[tuple[str, Scalar], ...]  # the columns that name a row, with their values; of none, the whole table


@dataclass(frozen=True)
class Claim:
    """What a sentence says of one quantity, and where the tables of the analysis say the same.

    `column` is that of the estimate; its interval, where there is one, is in `<column>_low` and `<column>_high`.
    """

    quantity: Literal["failure rate", "difference in failure rate", "best set", "share"]
    subject: str
    estimate: Estimate
    n: int  # runs, or rows of a set, that the estimate is over
    table: str
    row: Key
    column: str
    test: str = ""
    p: float = NAN  # of the test, adjusted for the comparisons of its question

    @property
    def decided(self) -> bool:
        """Whether the test says that there is a difference."""
        return self.p < LEVEL

    @property
    def direction(self) -> Literal[-1, 0, 1]:
        """Which way a decided difference goes; 0 for one that is not decided."""
        if not self.decided:
            return 0
        return 1 if self.estimate.value > 0 else -1


class Sentence(str):
    """A sentence of the page: text to whoever shows it, with the claims that it makes."""

    claims: tuple[Claim, ...]

    def __new__(cls, text: str, *claims: Claim) -> Sentence:
        """The text with its first letter in upper case."""
        sentence = super().__new__(cls, text[:1].upper() + text[1:])
        sentence.claims = claims
        return sentence


def claims_of(sentence: str) -> tuple[Claim, ...]:
    """The claims of a sentence; none of plain text."""
    return sentence.claims if isinstance(sentence, Sentence) else ()


def rows_of(table: pd.DataFrame, key: Key) -> pd.DataFrame:
    """The rows of a table that a key names."""
    for name, value in key:
        table = table[[cell == value for cell in table[name]]]
    return table
