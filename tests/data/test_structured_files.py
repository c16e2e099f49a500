"""JSON as a whole and Parquet: the same task as the same rows in a table, whatever shape the file has."""

import json
from pathlib import Path

import pandas as pd
import pytest
from made_files import folder, spec

from harness.data import tasks, text_files

ROWS = [{"text": "good film", "label": 1}, {"text": "bad, film", "label": 0}, {"text": "old film", "label": 1}]
TSV = "text\tlabel\n" + "".join(f"{row['text']}\t{row['label']}\n" for row in ROWS)
SHAPES = {
    "a list of objects": json.dumps(ROWS),
    "a list in an object": json.dumps({"version": "1.0", "data": ROWS}, indent=2),
    "columns as lists": json.dumps({"text": [r["text"] for r in ROWS], "label": [r["label"] for r in ROWS]}),
    "columns as pandas writes them": pd.DataFrame(ROWS).to_json(),
    "an object a line": "".join(json.dumps(row) + "\n" for row in ROWS),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_json_of_every_shape_is_the_table(tmp_path: Path, shape: str) -> None:
    table = tasks.load(spec(files=folder(tmp_path / "tsv", TSV, TSV)))
    found = tasks.load(spec(files=folder(tmp_path / "json", SHAPES[shape], SHAPES[shape], "json")))
    assert (found.sha256, found.label_names) == (table.sha256, ("0", "1"))
    assert list(found.train.numbers) == [1, 2, 3]
    assert found.train.unit == ("line" if shape == "an object a line" else "row")


def parquet(path: Path, frame: pd.DataFrame, **how: object) -> Path:
    path.mkdir()
    for stem in ("train", "dev"):
        frame.to_parquet(path / f"{stem}.parquet", **how)
    return path


def test_parquet_is_the_table(tmp_path: Path) -> None:
    table = tasks.load(spec(files=folder(tmp_path / "tsv", TSV, TSV)))
    frame = pd.DataFrame(ROWS).assign(score=[0.5, 1.0, 2.0], sure=[True, False, True], other=[[1], [2], [3]])
    files = parquet(tmp_path / "parquet", frame, row_group_size=2)
    assert tasks.load(spec(files=files)).sha256 == table.sha256
    assert tasks.load(spec(files=files, label="sure")).label_names == ("false", "true")
    assert tasks.load(spec(files=files, label="score", metric="pearson")).train.labels.tolist() == [0.5, 1.0, 2.0]
    named = parquet(tmp_path / "named", frame.assign(label=pd.Categorical(["yes", "no", "yes"])))
    assert tasks.load(spec(files=named)).label_names == ("no", "yes")
    lines = list(text_files.stream(files / "dev.parquet", spec(files=files), pairs=False))
    assert [(line.number, line.text, line.label) for line in lines] == [
        (1, "good film", "1"), (2, "bad, film", "0"), (3, "old film", "1"),
    ]  # fmt: skip


def test_a_row_of_parquet_without_a_text_is_named(tmp_path: Path) -> None:
    files = parquet(tmp_path / "hole", pd.DataFrame(ROWS).assign(text=["a", None, "c"]))
    with pytest.raises(ValueError, match=r"parquet, row 2: no text in column text"):
        tasks.load(spec(files=files))


@pytest.mark.parametrize("suffix", ["json", "jsonl", "parquet"])
def test_rows_to_predict_on_and_words_with_tags(tmp_path: Path, suffix: str) -> None:
    lists = pd.DataFrame({"words": [["good", "old"], ["bad"]], "tags": [["O", "B-X"], ["O"]]})
    files = tmp_path / "tagged"
    files.mkdir()
    for stem in ("train", "dev"):
        path = files / f"{stem}.{suffix}"
        if suffix == "parquet":
            lists.to_parquet(path)
        else:
            lists.to_json(path, orient="records", lines=suffix == "jsonl")
    raw = tasks.load(spec(files=files, kind="tokens"))
    assert raw.train.words == (("good", "old"), ("bad",))
    assert raw.train.labels.tolist() == [[0, 1], [0, -100]]
    if suffix != "parquet":
        path = tmp_path / f"new.{suffix}"
        pd.DataFrame(ROWS).to_json(path, orient="records", lines=suffix == "jsonl")
        assert [line.text for line in text_files.stream(path, spec(), pairs=False)] == [row["text"] for row in ROWS]
