"""Which part of the seed causes the spread: head initialisation, data order or dropout?"""

from __future__ import annotations

from harness.analysis.analyze import Analysis
from harness.analysis.verdicts import of_scripts
from harness.report.claims import LEVEL, Sentence, Words, followed_by, row_at
from harness.report.formatting import Row, integer, p_value, percent, unknown
from harness.report.section import FigureSpec, Section
from harness.report.table import Column, TableSpec, labels_of_axes, number, with_bounds
from harness.report.wording import first_part

_MOST_SENTENCES = 6
_PARTS = {"init": "the head's initialisation", "order": "the order of the data", "dropout": "dropout"}


def largest_parts(analysis: Analysis) -> list[Sentence]:
    """For each cell whose seed parts are crossed, the part that makes most of the variance of score and failing."""
    table, texts = analysis.seed_factors, []
    for cell, of_cell in table[table["reason"] == ""].groupby("cell", sort=False):
        where = f"at {analysis.study.cells[int(cell)].label}, " if len(analysis.study.cells) > 1 else ""
        for of, variance in (("score", "the variance of the score"), ("failing", "the variance of failure (0 or 1)")):
            parts = of_cell[(of_cell["of"] == of) & of_cell["share"].notna()]
            combined = parts["term"].str.contains("×") | (parts["term"] == "residual")
            if combined.all():
                continue
            words, top = Words("seed_factors"), row_at(parts, parts["share"][~combined].idxmax())
            key = ["cell", "of", "term"]
            low, high = (percent(top[end]).removesuffix(" %") for end in ("low", "high"))
            share = words.value(top, key, "share", followed_by(percent, f"[{low}, {high}]")) if top["share"] > 0 else ""
            rest = words.summary(
                "sum", float(parts["share"][combined].sum()), "share",
                f"cell == {cell} and of == {of!r} and ('×' in term or term == 'residual')", percent,
            )  # fmt: skip
            if top["share"] <= 0:
                high_of = words.summary(
                    "max", float(parts["high"][~combined].max()), "high",
                    f"cell == {cell} and of == {of!r} and '×' not in term and term != 'residual' and share == share",
                    percent,
                )  # fmt: skip
                texts.append(
                    words.sentence(
                        f"{where}no part of the seed is seen to make a share of {variance} by itself, though it may "
                        f"make up to {high_of}; interactions and the remaining variance make up {rest}."
                    )
                )
                continue
            texts.append(
                words.sentence(
                    f"{where}{_part(top['term'])} is the seed component with the largest share of {variance}, "
                    f"{share}; interactions and the remaining variance make up {rest}."
                )
            )
    return texts


def _part(term: str) -> str:
    """Names of seed parts in words: `the order of the data`."""
    return " with ".join(_PARTS.get(part, part) for part in term.replace("_seed", "").split(" + "))


def _of_components(analysis: Analysis) -> list[str]:
    """Which seed part makes the spread, where the parts are crossed."""
    table = analysis.seed_factors
    if not len(table):
        together = (
            f"One integer seeds {first_part(analysis.study.sweeps)}, data order and dropout of each run, so their "
            "contributions cannot be separated. Cross them (`init_seed: 1..5`, `order_seed: 1..5`) to see."
        )
        return [] if of_scripts(analysis.study) else [together]
    lacking = [f"Variance components are unknown: {why}." for why in sorted(set(table["reason"]) - {""})]
    return [*largest_parts(analysis)[:_MOST_SENTENCES], *lacking]


def same_seeds(analysis: Analysis) -> list[Sentence]:
    """Whether the same seeds do badly in several cells."""
    texts = []
    for row in analysis.diagnosis.shared_seeds.to_dict("records"):
        if unknown(row["correlation"]):
            continue
        words, what = Words("shared_seeds"), {"score": "scores", "failing": "failures"}[row["of"]]
        p = words.value(row, ["of"], "p", lambda p: "p < 0.001" if p < 0.001 else f"p = {p:.2g}")
        correlation = words.value(row, ["of"], "correlation", lambda value: f"{value:.2f}".replace("-", "−"))
        verdict = "the same seeds tend to do badly" if row["p"] < LEVEL else "no sign that the same seeds do badly"
        texts.append(
            words.sentence(
                f"{what.capitalize()} across cells: {verdict} (mean rank correlation {correlation} over "
                f"{words.value(row, ['of'], 'cells', str)} cells and {words.value(row, ['of'], 'seeds', str)} seeds; "
                f"permutation test, one-sided, {p})."
            )
        )
    return texts


def sentences(analysis: Analysis) -> list[str]:
    """Which part of the seed makes the spread, and whether the same seeds do badly everywhere."""
    return [*_of_components(analysis), *same_seeds(analysis)]


# --------------------------------------------------------------------------------------------------------------- tables


def _labels_of_components(analysis: Analysis) -> list[Column]:
    def part(row: Row) -> str:
        return str(row["reason"] or row["term"].replace("_seed", ""))

    return [*labels_of_axes(analysis), ("outcome", lambda row: row["of"]), ("component", part)]


def _columns(analysis: Analysis) -> list[Column]:
    return [
        ("runs", number("runs", integer)),
        ("variance", number("variance", lambda value: "–" if unknown(value) else f"{value:.3g}".replace("-", "−"))),
        ("share [95 %]", with_bounds("share", percent)),
    ]


def _of_shared_seeds(analysis: Analysis) -> list[Column]:
    return [
        ("cells", number("cells", integer)),
        ("seeds", number("seeds", integer)),
        ("mean rank correlation", number("correlation")),
        ("p, permutation", number("p", p_value)),
    ]


SECTION = Section(
    anchor="seeds",
    heading="Seed components",
    question="Which part of the seed causes the spread: initialisation, data order or dropout?",
    sentences=sentences,
    more_figures=(
        FigureSpec(
            "seed_ranks.seed_ranks",
            "Each row is a cell, each column a seed; the darker, the better the seed's score among those of the cell. "
            "A seed that is bad by itself is a pale column; crosses failed.",
        ),
    ),
    tables=(
        TableSpec(
            "seed_factors",
            "Variance components of the crossed seed components (random-effects analysis of variance)",
            _columns,
            _labels_of_components,
        ),
        TableSpec(
            "shared_seeds",
            "Whether the same seeds do badly in different cells (those whose runs differ)",
            _of_shared_seeds,
            lambda analysis: [("outcome", lambda row: row["of"])],
            folded=True,
            rows=lambda table: table[table["correlation"].notna()],
        ),
    ),
)
