"""One run that claims another dev set is left out of the answers of its cell; the others are not."""

from pathlib import Path

import numpy as np
import pytest
from made_runs import Run
from whole_records import TEXT, arrays_of, rewrite, whole_store

from harness.analysis.dev_answers import read_answers
from harness.config.trials import expand
from harness.records.study import of_sweep


@pytest.mark.parametrize("odd", [0, 1, 2])
def test_the_dev_set_is_that_of_most_runs(tmp_path: Path, odd: int) -> None:
    text = TEXT.replace("[1e-5, 2e-5]", "1e-5").replace("1..4", "1..3")
    sweep, store = whole_store(tmp_path, [Run(300), Run(310), Run(320)], text)
    name = expand(sweep)[odd].id
    rewrite(store, name, labels=np.roll(arrays_of(store, name)["labels"], 7))
    (answers,) = read_answers(of_sweep(sweep, store))
    assert answers is not None
    assert answers.rows == tuple(row for row in range(3) if row != odd)
    if odd:
        return
    logits = arrays_of(store, name)["logits"]
    rewrite(store, name, logits=np.concatenate([logits, logits[:, :1] - 1], axis=1), labels=np.sort(answers.labels))
    (answers,) = read_answers(of_sweep(sweep, store))  # the same labels, answered with a class more
    assert answers is not None
    assert answers.rows == (1, 2)
