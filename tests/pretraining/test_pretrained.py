"""The page of a pretrained model: what is not known is said so, and texts of one's own break no table."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib import image

from harness.pretraining.corpus import TextSource
from harness.pretraining.objectives import LanguageScore, MaskedExample
from harness.pretraining.page import Facts, Made, page, write
from harness.pretraining.settings import Settings

FACTS = Facts((TextSource("a.txt", "ab" * 32),), 900, 100, 12_345, 0.0125, ())


def made(folder: Path = Path("models/mine"), **changes: object) -> Made:
    given: dict[str, object] = {
        "folder": folder, "network": "BERT, 4 layers × 256, 4 heads", "parameters": 1_234_567,
        "settings": Settings(texts=(Path("a.txt"),), steps=90, batch_size=20), "facts": FACTS,
        "losses": np.linspace(5, 2, 90), "held_out": ((0, LanguageScore(5.0, 0.01)), (90, LanguageScore(2.0, 0.5))),
        "examples": (), "wall_seconds": 65.4, "device": "cpu",
    }  # fmt: skip
    return Made(**(given | changes))  # type: ignore[arg-type]


def test_the_page_says_what_it_is_and_how_well_it_predicts() -> None:
    said = page(made())
    assert "1,234,567 parameters, from random weights; masked language modelling (15 % of the tokens); 90 steps" in said
    # e^2 and e^5
    assert (
        "loss **2.000** nats a masked token (perplexity 7.39; before training 5.000, 148.41), 50.0% predicted" in said
    )
    assert "900 sentences, 100 others held out by a hash of their text; 12,345 tokens, 1.25% unknown" in said
    assert "about 2.0 passes" in said
    assert f"| a.txt | {'ab' * 32} |" in said
    assert "`model: {name: mine, folder: models/mine}`" in said
    assert "drawn afresh" not in said


def test_the_page_of_each_objective() -> None:
    causal = page(made(settings=Settings(objective="causal", start="gpt")))
    assert "going on from `gpt`; causal language modelling;" in causal
    assert "nats a token (" in causal
    scores = ((0, LanguageScore(5.0, 0.01, 0.5, 0.7)), (90, LanguageScore(2.0, 0.5, 0.875, 0.3)))
    pairs = page(made(settings=Settings(next_sentence=True, whole_words=True), held_out=scores))
    assert "(15 % of the tokens, whole words) and next-sentence prediction" in pairs
    assert "87.5% of the pairs told apart (before 50.0%; half are true)" in pairs
    embedded = page(made(settings=Settings(), facts=Facts((), 40_000, 200, 9, None, ())))
    assert "(20 % of the tokens)" in embedded
    assert "40,000 entailed pairs of the embedded language, 200 others held out; 9 tokens; about" in embedded


def test_what_is_not_known_is_said() -> None:
    assert "No text was held out, so that nothing is known" in page(made(held_out=()))
    assert "perplexity inf" in page(made(held_out=((0, LanguageScore(5.0, 0.0)), (90, LanguageScore(1e4, 0.0)))))
    drawn = page(made(facts=Facts((), 9, 1, 99, 0.0, ("cls.bias",))))
    assert "The folder had no `cls.bias`: drawn afresh by the seed." in drawn


def test_texts_of_ones_own_stay_in_their_cells() -> None:
    found = (("a|b", 0.25), ("<b>", 0.004))
    said = page(made(examples=(MaskedExample("one | two\n<script> [MASK] `x`", "*", found),)))
    (row,) = [line for line in said.splitlines() if "script" in line]
    assert row == r"| one \| two \<script\> \[MASK\] \`x\` | \* | a\|b (0.25) / \<b\> (under 0.01) |"


def test_the_curve_is_drawn_whatever_the_loss(tmp_path: Path) -> None:
    for losses in (np.linspace(5, 2, 300), np.array([3.0]), np.full(40, np.nan)):
        write(tmp_path, made(losses=losses))
        pixels = image.imread(tmp_path / "pretrain.png")
        assert pixels.shape[1] == pytest.approx(1120, abs=2)
        assert pixels.min() < 0.2  # something is drawn
