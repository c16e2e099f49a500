"""A claim is a number with its table and row; a sentence is text with the claims that it words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from harness.common.text import Scalar, count_noun
from harness.stats.estimate import NAN, Estimate

LEVEL = 0.05  # below which a p-value decides

Key = tuple[tuple[str, Scalar], ...]  # the columns that name a row, with their values; of none, the whole table


# What a claim is of. The first four are worded in `wording`; `value` is a number of a row as it stands there, `size`
# the same without its sign; the others are over the rows that `where` holds for: how many there are, how many different
# values, a summary of their column, or its sum over that of the column `over`.
Quantity = Literal[
    "failure rate",
    "difference in failure rate",
    "best set",
    "share",
    "value",
    "size",
    "count",
    "distinct",
    "sum",
    "mean",
    "median",
    "min",
    "max",
    "range",
    "ratio",
]


Summary = Literal["count", "distinct", "sum", "mean", "median", "min", "max", "range", "ratio"]


@dataclass(frozen=True)
class Claim:
    """What a sentence says of one quantity, and where the tables of the analysis say the same.

    `column` is that of the estimate; its interval, where there is one, is in `<column>_low` and `<column>_high`, or in
    `low` and `high`.
    """

    quantity: Quantity
    subject: str
    estimate: Estimate
    n: int  # runs, or rows of a set, that the estimate is over
    table: str
    row: Key
    column: str
    test: str = ""
    p: float = NAN  # of the test, adjusted for the comparisons of its question
    where: str = ""  # which rows a count or a summary is over, as a Python expression of their columns; all of them
    words: str = ""  # how the sentence says it, beginning with the number
    over: str = ""  # the column of a ratio's lower part

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


class Words:
    """The claims of a sentence, collected while its text is written: each method gives the words for a number."""

    def __init__(self, table: str) -> None:
        """Of numbers of this table, unless a method is told another."""
        self.table = table
        self.claims: list[Claim] = []

    def value(
        self,
        row: Mapping[str, Any],
        key: Sequence[str],
        column: str,
        form: Callable[[Any], str],
        table: str | None = None,
    ) -> str:
        """A number of the row that the columns of `key` name, as `form` words it; its interval may be in the words."""
        words = form(row[column])
        ends = (row.get(f"{column}_{end}", row.get(end)) for end in ("low", "high"))
        estimate = Estimate(_number(row[column]), *map(_number, ends))
        named = tuple((name, row[name]) for name in key)
        self.claims.append(Claim("value", column, estimate, 1, table or self.table, named, column, words=words))
        return words

    def size(
        self, row: Mapping[str, Any], key: Sequence[str], column: str, form: Callable[[Any], str], table: str = ""
    ) -> str:
        """A number of a row without its sign, which the words around it tell."""
        words = form(abs(row[column]))
        named = tuple((name, row[name]) for name in key)
        estimate = Estimate(abs(_number(row[column])), NAN, NAN)
        self.claims.append(Claim("size", column, estimate, 1, table or self.table, named, column, words=words))
        return words

    def count(self, number: int, where: str, form: Callable[[int], str] = str, table: str | None = None) -> str:
        """How many rows there are that `where` holds for."""
        return self.summary("count", number, "", where, form, table)

    def summary(
        self,
        kind: Summary,
        number: float,
        column: str,
        where: str = "",
        form: Callable[[Any], str] = str,
        table: str | None = None,
        over: str = "",
    ) -> str:
        """A summary of a column over the rows that `where` holds for."""
        words, of = form(number), table or self.table
        estimate = Estimate(float(number), NAN, NAN)
        self.claims.append(Claim(kind, column, estimate, 1, of, (), column, where=where, words=words, over=over))
        return words

    def sentence(self, text: str) -> Sentence:
        """The sentence, with the claims so far."""
        return Sentence(text, *self.claims)


def followed_by(form: Callable[[Any], str], text: str) -> Callable[[Any], str]:
    """The words of a number and what stands behind it, as its interval."""
    return lambda value: f"{form(value)} {text}"


def counting(noun: str) -> Callable[[Any], str]:
    """The words of a count: `1 run`, `3 runs`."""
    return lambda value: count_noun(int(value), noun)


def as_is(text: str) -> Callable[[Any], str]:
    """The words of a number that were made elsewhere."""
    return lambda value: text


def _number(value: Any) -> float:
    return NAN if value is None or value is pd.NA else float(value)


def claims_of(sentence: str) -> tuple[Claim, ...]:
    """The claims of a sentence; none of plain text."""
    return sentence.claims if isinstance(sentence, Sentence) else ()


def row_at(table: pd.DataFrame, label: Any) -> dict[str, Any]:
    """The row of that label as a mapping, in which counts stay whole numbers."""
    position = table.index.get_loc(label)
    values = {str(name): column.array[position] for name, column in table.items()}  # `to_dict` takes ten times as long
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in values.items()}


def rows_of(table: pd.DataFrame, key: Key) -> pd.DataFrame:
    """The rows of a table that a key names."""
    for name, value in key:
        table = table[[cell == value for cell in table[name]]]
    return table
