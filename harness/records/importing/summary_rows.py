"""Rows that are no runs: means and the like that people write under their seeds."""

from __future__ import annotations

import re
import unicodedata

_TEXT = """
mean means average averages avg std stdev stddev sd se sem stderr var variance min minimum max maximum median total
totals sum count iqr range overall summary quartile percentile mode
mittel mittelwert mittelwerte durchschnitt standardabweichung varianz summe gesamt
moyenne moyennes écart médiane somme total media promedio mediana desviación desvio estándar suma mínimo máximo
среднее медиана минимум максимум
平均 平均値 標準偏差 最小 最小値 最大 最大値 中央値 合計 均值 平均值 标准差 最小值 最大值 中位数 总计
"""
# What stands beside such words: `Standard deviation`, `Mean of all seeds`, `écart type`.
_BESIDE_TEXT = """
standard deviation dev error of over the all seeds seed runs run across value values score scores acc accuracy
best worst and or type tipica padrao und der alle
"""
_QUANTILE = re.compile(r"\d{1,2}(?:\.\d+)?\s*%")  # as pandas' describe writes: 25%
_ASIDE = re.compile(r"\([^)]*\)|\[[^\]]*\]|[±+/&:,.;_=-]")


def _folded(text: str) -> str:
    """A text without accents and case, in any script: `MÉDIANE` is `mediane`, `MİN` is `min`."""
    parts = unicodedata.normalize("NFKD", text.replace("İ", "I").replace("ı", "i"))
    return "".join(sign for sign in parts if not unicodedata.combining(sign)).casefold()


_WORDS = set(_folded(_TEXT).split())
_BESIDE = set(_BESIDE_TEXT.split())


def is_summary(value: object) -> bool:
    """Whether a text names a summary over runs (`Mean`, `Std. dev.`, `MÉDIANE`, `25%`), not a seed."""
    if not isinstance(value, str):
        return False
    text = value.strip()
    if _QUANTILE.fullmatch(text):
        return True
    words = set(_ASIDE.sub(" ", _folded(text)).split())
    if words & {"standard", "std"} and words & {"deviation", "dev", "error"}:
        return True
    return bool(words & _WORDS) and words <= _WORDS | _BESIDE
