"""The verdict and the key figures of the first screen, and that each says what its row of a table says."""

from xml.etree import ElementTree

import pytest
from made_runs import HEAD, Run, import_of, imported_runs, study_of

from harness.analysis.analyze import analyse
from harness.analysis.failures import all_runs
from harness.report import card, headline
from harness.report.claims import rows_of

OK, BAD = Run(300), Run(200)
TWO = HEAD + "lr: 1e-5\nbias_correction: [off, on]\nepochs: 3\nseeds: 1..8\n"
FOUR = HEAD + "lr: [1e-5, 2e-5]\nbias_correction: [off, on]\nepochs: 3\nseeds: 1..8\n"
ONE = HEAD + "lr: 1e-5\nepochs: 3\nseeds: 1..8\n"


def plain(text: str) -> str:
    return text.replace("\N{NO-BREAK SPACE}", " ")


@pytest.mark.parametrize(
    ("text", "runs", "verdict"),
    [
        (ONE, {}, "No run has finished yet"),
        (ONE, {0: [BAD] * 4 + [OK] * 4}, "Unstable: 4 of 8 runs failed (50 %, 22–78 %)"),
        (ONE, {0: [BAD] + [OK] * 7}, "Some runs fail: 1 of 8 runs failed (12 %, 2–47 %)"),
        (ONE, {0: [OK] * 8}, "No run failed: 0 of 8; failure rate may still be up to 32 % (95 %)"),
        (ONE, {0: [BAD] * 8}, "No run succeeded: 8 of 8 runs failed (100 %, 68–100 %)"),
        (
            TWO,
            {0: [BAD] * 7 + [OK], 1: [OK] * 8},
            "Unstable without bias correction: 7 of 8 runs failed (88 %, 53–98 %); with bias correction none of 8",
        ),
        (
            ONE,
            {0: [Run(205, 0.692)] * 8},
            "No run failed: 0 of 8, but 8 are near chance; failure rate may still be up to 32 % (95 %)",
        ),
        (
            TWO,
            {0: [OK] * 8, 1: [OK] * 8},
            "No run failed: 0 of 16; a single recipe's failure rate may still be up to 32 % (95 %)",
        ),
        (
            TWO,
            {0: [BAD] + [OK] * 7, 1: [OK] * 8},
            "Some runs fail: 1 of 16 runs failed; no single recipe is shown to be unstable",
        ),
        # All failures lie at one of the learning rates: a rate over both would blame the other one, too.
        (
            HEAD + "bias_correction: [off, on]\nlr: [1e-5, 2e-5]\nepochs: 3\nseeds: 1..8\n",
            {0: [OK] * 8, 1: [BAD] * 8, 2: [OK] * 8, 3: [OK] * 8},
            "Unstable without bias correction: 8 of 16 runs failed (50 %, 28–72 %), all of them with lr 2e-5; with "
            "bias correction none of 16",
        ),
        # Simpson: within each rate "on" fails less often, pooled it fails more often; neither stands in the verdict.
        (
            HEAD + "lr: [1e-5, 2e-5]\nbias_correction: [off, on]\nepochs: 3\nseeds: 1..20\n",
            {0: [BAD] + [OK] * 19, 1: [OK] * 4, 2: [BAD] * 4, 3: [BAD] * 12 + [OK] * 8},
            "2 of 4 recipes are unstable: 17 of 48 runs failed",
        ),
        (FOUR, {0: [Run(diverged=True)] * 8, 1: [OK] * 8, 2: [OK] * 8, 3: [OK] * 8}, None),
    ],
)  # fmt: skip
def test_the_verdict(tmp_path, text, runs, verdict):
    analysis = analyse(study_of(tmp_path, text, runs))
    said = headline.verdict(analysis)
    if verdict is not None:
        assert plain(said) == verdict
    tables = analysis.tables | {"all_runs": all_runs(analysis.study)}
    for claim in said.claims:
        rows = rows_of(tables[claim.table], claim.row)
        assert len(rows) == 1 or not claim.row
        if claim.quantity == "failure rate":
            row = rows.iloc[0]
            assert (claim.estimate.value, claim.n) == (row["failed"] / row["judged"], row["judged"])
            assert (claim.estimate.low, claim.estimate.high) == (row["failed_low"], row["failed_high"])
    for figure in headline.cards(analysis):
        assert figure.value
        assert "nan" not in figure.value + figure.note
        assert figure.value != "–"


def test_the_key_figures(tmp_path):
    analysis = analyse(study_of(tmp_path, TWO, {0: [BAD] * 7 + [Run(320)], 1: [Run(300 + seed) for seed in range(8)]}))
    cards = {figure.label: (figure.value, figure.note) for figure in headline.cards(analysis)}
    assert cards["Finished runs"] == ("16", "2 recipes × 8 seeds")
    assert cards["Failed runs"] == ("7", "of 16; at most 7 of 8 in one recipe")
    assert cards["Recommended"] == ("bias correction on", "fails least, best mean")
    assert cards["Standard deviation"] == ("0.006–0.106", "over seeds, by recipe")
    assert cards["Dev-set noise"][0].endswith("]")


def test_runs_that_nobody_judged(tmp_path):
    cells = [(("method", "a"),), (("method", "b"),)]
    study = import_of(tmp_path, cells, [*imported_runs([0.5, 0.6]), *imported_runs([0.7, 0.9], 1)])
    analysis = analyse(study)
    assert headline.verdict(analysis) == (
        "Scores spread over seeds with a standard deviation of 0.071 to 0.141; whether any run failed is not known"
    )
    assert "Failed runs" not in {figure.label for figure in headline.cards(analysis)}


def test_the_card_and_the_badge(tmp_path):
    analysis = analyse(study_of(tmp_path, TWO, {0: [BAD] * 7 + [Run(320)], 1: [Run(300 + seed) for seed in range(8)]}))
    text = plain(card.card(analysis))
    assert "**Unstable without bias correction: 7 of 8 runs failed" in text
    assert "| bias correction off | 8 | 7 of 8 | 88 % [53, 98] | 0.537 ± 0.106 |" in text
    assert "| bias correction on | 8 | 0 of 8 | 0 % [0, 32] | 0.759 ± 0.006 |" in text
    assert "Any run can be trained again: `harness rerun made --profile default --trial lr1e-5-nobc-" in text
    drawn = ElementTree.fromstring(card.badge(analysis))
    assert [part.text for part in drawn.iter() if part.tag.endswith("text")] == ["stability", "7 of 16 runs failed"]
