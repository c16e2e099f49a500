import csv
import io
import json
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_files import GOOD, folder, spec

from harness.common.errors import HarnessError
from harness.config.recipe import TaskSpec
from harness.data import tasks, text_files

GOLDEN = Path(__file__).parents[1] / "golden" / "task_errors.txt"
words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12)
texts = words.filter(str.strip)
labels = words.map(str.strip).filter(bool)
splits = st.tuples(
    *[st.lists(st.tuples(texts, texts, st.integers(0, 2)), min_size=2, max_size=6)] * 2,
    st.lists(labels, min_size=3, max_size=3, unique=True),
).filter(
    lambda case: {row[2] for row in case[1]} <= {row[2] for row in case[0]} and len({row[2] for row in case[0]}) > 1
)


def spelt(rows, names):
    return [(one, two, names[label]) for one, two, label in rows]


def as_table(rows, delimiter, quoted, newline="\n"):
    out = io.StringIO()
    header = ("text", "text_pair", "label")
    if quoted:
        # Left to itself the module writes a lone carriage return without quotes, and can't read that back.
        quoting = csv.QUOTE_ALL if any("\r" in field for row in rows for field in row) else csv.QUOTE_MINIMAL
        csv.writer(out, delimiter=delimiter, lineterminator=newline, quoting=quoting).writerows([header, *rows])
    else:
        out.write(newline.join(delimiter.join(row) for row in [header, *rows]) + newline)
    return out.getvalue()


def as_json(rows):
    keys = ("text", "text_pair", "label")
    return "".join(json.dumps(dict(zip(keys, row, strict=True))) + "\n" for row in rows)


@given(splits, st.sampled_from(["\n", "\r\n"]), st.booleans())
@settings(max_examples=50, deadline=None)
def test_every_format_reads_back_what_was_written(case, newline, bom):
    *split_rows, names = case
    train, validation = (spelt(rows, names) for rows in split_rows)
    plain = not any(set("\t\r\n") & set("".join(row)) for row in train + validation)
    versions = {
        "csv": [as_table(rows, ",", True, newline) for rows in (train, validation)],
        "jsonl": [as_json(rows) for rows in (train, validation)],
    }
    if plain:
        versions["tsv"] = [as_table(rows, "\t", False, newline) for rows in (train, validation)]
    versions["json"] = [
        json.dumps([json.loads(line) for line in as_json(rows).split("\n") if line]) for rows in (train, validation)
    ]
    hashes = set()
    with tempfile.TemporaryDirectory() as name:
        for suffix, contents in versions.items():
            files = [content.encode("utf-8-sig" if bom else "utf-8") for content in contents]
            raw = tasks.load(spec(files=folder(Path(name) / suffix, *files, suffix)))
            for rows, written in ((raw.train, train), (raw.validation, validation)):
                spoken = [raw.label_names[label] for label in rows.labels]
                assert list(zip(rows.texts, rows.pairs, spoken, strict=True)) == written
            hashes.add(raw.sha256)
    assert len(hashes) == 1


def test_quotes_crlf_bom_and_blank_lines_at_the_end(tmp_path):
    train = b'\xef\xbb\xbftext\tlabel\r\n"so" he said\t1\r\nNA\t0\r\n\r\n\r\n'
    raw = tasks.load(spec(files=folder(tmp_path / "plain", train, "text\tlabel\nnull\t1\nNone\t0")))
    assert raw.train.texts == ('"so" he said', "NA")
    assert raw.validation.texts == ("null", "None")
    quoted = 'text,label\n"one, ""two""\nlines",0\n\u2028x,1\n\n'
    raw = tasks.load(spec(files=folder(tmp_path / "csv", quoted, quoted, "csv")))
    assert raw.train.texts == ('one, "two"\nlines', "\u2028x")
    long = "x" * 200_000  # above the csv module's own limit
    raw = tasks.load(spec(files=folder(tmp_path / "long", f"text,label\n{long},0\nb,1\n", "text,label\nb,1\n", "csv")))
    assert raw.train.texts[0] == long


def test_quoting_can_be_chosen(tmp_path):
    files = folder(tmp_path, 'text\tlabel\n"a\tb"\t0\nc\t1\n', 'text\tlabel\n"d"\t1\n')
    raw = tasks.load(spec(files=files, quoting="csv"))
    assert raw.train.texts == ("a\tb", "c")
    assert raw.validation.texts == ("d",)
    files = folder(tmp_path / "none", 'text,label\n"a",0\nb,1\n', 'text,label\n"d",1\n', "csv")
    assert tasks.load(spec(files=files, quoting="none")).train.texts == ('"a"', "b")


def test_columns_by_name_and_by_index(tmp_path):
    content = "id\tpremise\tclaim\tgold\n1\ta\tb\tyes\n2\tc\td\tno\n"
    named = spec(files=folder(tmp_path, content, content), text="premise", text_pair="claim", label="gold")
    numbered = spec(files=tmp_path, text=1, text_pair=2, label=3)
    assert tasks.load(named).sha256 == tasks.load(numbered).sha256
    assert tasks.load(named).train.pairs == ("b", "d")
    assert tasks.load(spec(files=tmp_path, text="premise", label="gold")).train.pairs is None


def test_json_labels_may_be_numbers_and_truth_values(tmp_path):
    rows = '{"text": "a", "label": %s}\n{"text": "b", "label": %s}\n'
    raw = tasks.load(spec(files=folder(tmp_path, rows % ("true", "false"), rows % ("true", "true"), "jsonl")))
    assert raw.label_names == ("false", "true")
    raw = tasks.load(spec(files=folder(tmp_path, rows % (10, 9), rows % (9, 9), "jsonl")))
    assert raw.label_names == ("9", "10")


JSON = '{"text": "good film", "label": "pos"}\n{"text": "bad film", "label": "neg"}\n'
CSV = GOOD.replace("\t", ",")
BAD = {  # what is wrong: suffix, training file, validation file, further fields of the task
    "too few fields": ("tsv", GOOD + "no label\n", GOOD, {}),
    "too many fields": ("tsv", GOOD, GOOD + "a\tb\tpos\n", {}),
    "blank line inside": ("tsv", "text\tlabel\na\tpos\n\nb\tneg\n", GOOD, {}),
    "blank line inside CSV": ("csv", "text,label\na,pos\n\nb,neg\n", CSV, {}),
    "empty text": ("tsv", GOOD + "\tpos\n", GOOD, {}),
    "blank text": ("tsv", GOOD + "  \tpos\n", GOOD, {}),
    "empty text_pair": ("tsv", "text\ttext_pair\tlabel\na\t\tpos\nb\tc\tneg\n", GOOD, {}),
    "missing label": ("tsv", GOOD, GOOD + "fair film\t\n", {}),
    "label not in train": ("tsv", GOOD, GOOD + "fair film\tneutral\n", {}),
    "not UTF-8": ("tsv", GOOD.encode() + "caf\u00e9\tpos\n".encode("latin-1"), GOOD, {}),
    "UTF-16": ("tsv", GOOD.encode("utf-16"), GOOD, {}),
    "word for a number": ("tsv", "text\tlabel\na\t1.5\nb\tgood\n", GOOD, {"metric": "pearson"}),
    "no finite number": ("tsv", "text\tlabel\na\t1.5\nb\tnan\n", GOOD, {"metric": "spearman"}),
    "number beyond float32": ("tsv", "text\tlabel\na\t1.5\nb\t1e39\n", GOOD, {"metric": "spearman"}),
    "NUL": ("tsv", GOOD + "a\0b\tpos\n", GOOD, {}),
    "NUL spelt in JSON": ("jsonl", JSON + '{"text": "a\\u0000b", "label": "pos"}', JSON, {}),
    "half a surrogate pair": ("jsonl", JSON + '{"text": "\\ud800", "label": "pos"}', JSON, {}),
    "open quote": ("csv", CSV + '"never closed,pos\nb,neg\n', CSV, {}),
    "text after a quote": ("csv", CSV + '"a"b,pos\n', CSV, {}),
    "line is no JSON": ("jsonl", JSON + '{"text": "a", "label"\n', JSON, {}),
    "line is a JSON list": ("jsonl", JSON + '["a", "pos"]\n', JSON, {}),
    "NaN in JSON": ("jsonl", JSON + '{"text": NaN, "label": "pos"}\n', JSON, {}),
    "missing key": ("jsonl", JSON, JSON + '{"text": "a"}\n', {}),
    "null in JSON": ("jsonl", JSON, JSON + '{"text": null, "label": "pos"}\n', {}),
    "text is an object": ("jsonl", JSON + '{"text": {"a": 1}, "label": "pos"}\n', JSON, {}),
    "empty file": ("tsv", "", GOOD, {}),
    "header alone": ("tsv", GOOD, "text\tlabel\n", {}),
    "empty JSON file": ("jsonl", JSON, "\n", {}),
    "one class": ("tsv", "text\tlabel\na\tpos\nb\tpos\n", GOOD, {}),
    "no such column": ("tsv", GOOD, GOOD, {"label": "gold"}),
    "no default column": ("tsv", "sentence\tlabel\na\t0\nb\t1\n", GOOD, {}),
    "column named twice": ("tsv", "text\tlabel\tlabel\na\t0\t1\nb\t1\t0\n", GOOD, {}),
    "no column of a GLUE pair": ("tsv", "sentence1\tlabel\na\t0\nb\t1\n", GOOD, {"name": "rte"}),
    "no such index": ("tsv", GOOD, GOOD, {"text": 2}),
    "one column twice": ("tsv", GOOD, GOOD, {"text": "label"}),
    "name without header": ("tsv", GOOD, GOOD, {"text": "text", "label": 1, "header": False}),
    "nothing without header": ("tsv", GOOD, GOOD, {"text": 0, "header": False}),
    "index for JSON": ("jsonl", JSON, JSON, {"text": 0}),
    "second text in train alone": ("tsv", "text\ttext_pair\tlabel\na\tb\tpos\nc\td\tneg\n", GOOD, {}),
    "files for the shipped task": ("tsv", GOOD, GOOD, {"name": "embedded"}),
    "other suffix": ("txt", GOOD, GOOD, {"files": {"train": "{}/train.txt", "validation": "{}/dev.txt"}}),
    "no such file": ("tsv", GOOD, GOOD, {"files": {"train": "{}/trian.tsv", "validation": "{}/dev.tsv"}}),
    "one file for both": ("tsv", GOOD, GOOD, {"files": {"train": "{}/train.tsv", "validation": "{}/train.tsv"}}),
    "a share beside a file": (
        "tsv",
        GOOD,
        GOOD,
        {"files": {"train": "{}/train.tsv", "validation": "{}/dev.tsv"}, "validation": 0.5},
    ),
    "a share beside a folder's file": ("tsv", GOOD, GOOD, {"validation": 0.5}),
    "a share of two examples": ("tsv", GOOD, GOOD, {"files": {"train": "{}/train.tsv"}, "validation": 0.5}),
    "neither file nor share": ("tsv", GOOD, GOOD, {"files": {"train": "{}/train.tsv"}}),
    "ids for labels": ("tsv", "text\tlabel\n" + "".join(f"t{n}\t{n}\n" for n in range(300)), GOOD, {}),
    "JSON that is no list": ("json", '{"version": 2, "data": {}}', JSON, {}),
    "JSON cut short": ("json", '[{"text": "a", "label": "pos"}, {"text"', JSON, {}),
    "a row of JSON that is no object": ("json", '[{"text": "a", "label": "pos"}, 3]', JSON, {}),
    "columns of JSON of two lengths": ("json", '{"text": ["a", "b"], "label": ["pos"]}', JSON, {}),
    "a list for a label": (
        "jsonl",
        '{"text": "a", "label": ["pos", "new"]}\n',
        '{"text": "a", "label": ["pos"]}\n',
        {},
    ),
    "no Parquet": ("parquet", GOOD, GOOD, {}),
    "dev for test": ("tsv", GOOD, GOOD, {"files": {"train": "{}", "validation": "{}", "test": "{}/dev.tsv"}}),
    "no test file": ("tsv", GOOD, GOOD, {"files": {"train": "{}", "validation": "{}", "test": "{}"}}),
}
TAGGED = "good\tO\nold\tB-X\nfilm\tI-X\n\nbad\tB-Y\n"
LISTS = '{"words": ["good", "old"], "tags": ["O", "B-X"]}\n'
TOKENS = {"kind": "tokens"}
BAD |= {
    "tag that is no BIO": ("tsv", TAGGED.replace("I-X", "E-X"), TAGGED, TOKENS),
    "tag without a type": ("conll", TAGGED, TAGGED.replace("B-Y", "B-"), TOKENS),
    "a header": ("tsv", f"word\ttag\n{TAGGED}", TAGGED, TOKENS),
    "I without its B": ("conll", TAGGED.replace("B-X", "O"), TAGGED, TOKENS),
    "I of another type": ("conll", TAGGED.replace("I-X", "I-Y"), TAGGED, TOKENS),
    "I that begins a sentence": ("conll", TAGGED, TAGGED.replace("B-Y", "I-Y"), TOKENS),
    "tag not in train": ("conll", TAGGED, TAGGED.replace("B-Y", "B-Z"), TOKENS),
    "word without a tag": ("conll", TAGGED.replace("bad\tB-Y", "bad"), TAGGED, TOKENS),
    "tag without a word": ("tsv", TAGGED, TAGGED.replace("bad", " "), TOKENS),
    "O alone": ("tsv", "good\tO\nold\tO\n", TAGGED, TOKENS),
    "no sentence": ("tsv", TAGGED, "\n\n", TOKENS),
    "more words than tags": ("jsonl", LISTS, LISTS + '{"words": ["good", "old"], "tags": ["O"]}\n', TOKENS),
    "no tags": ("jsonl", LISTS, LISTS + '{"words": ["good"]}\n', TOKENS),
    "numbers as tags": ("jsonl", LISTS.replace('"O", "B-X"', "0, 1"), LISTS, TOKENS),
    "text as words": ("jsonl", LISTS + '{"words": "good old", "tags": ["O"]}', LISTS, TOKENS),
    "line of tags is no JSON": ("jsonl", LISTS + "good\n", LISTS, TOKENS),
    "tag of JSON that is no BIO": ("jsonl", LISTS + LISTS.replace("B-X", "X"), LISTS, TOKENS),
    "name for a column of tags": ("tsv", TAGGED, TAGGED, TOKENS | {"label": "tag"}),
    "csv of tags": ("csv", TAGGED, TAGGED, TOKENS | {"files": {"train": "{}/train.csv", "validation": "{}/dev.csv"}}),
    "tokens without files": ("tsv", TAGGED, TAGGED, TOKENS | {"files": None}),
    "tokens of the shipped task": ("tsv", TAGGED, TAGGED, TOKENS | {"name": "embedded"}),
}


def message(path, fields):
    fields = {"name": "own", "files": str(path), **fields}
    if isinstance(fields["files"], dict):
        fields["files"] = {split: file.format(path) for split, file in fields["files"].items()}
    with pytest.raises(HarnessError) as caught:
        tasks.load(TaskSpec.model_validate(fields))
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(str(path), "DIR")


def test_golden_errors(tmp_path):
    lines = []
    for number, (what, (suffix, train, validation, fields)) in enumerate(BAD.items()):
        path = folder(tmp_path / str(number), train, validation, suffix)
        lines.append(f"{what}\n    {message(path, fields)}\n")
    tested = folder(tmp_path / "tested", GOOD, GOOD)
    (tested / "test.tsv").write_text(GOOD + "odd film\tneutral\n")
    files = {"files": dict.fromkeys(("train", "validation", "test"), "{}")}
    lines.append(f"test label not in train\n    {message(tested, files)}\n")
    two = folder(tmp_path / "two", GOOD, GOOD)
    folder(two, CSV, CSV, "csv")
    (two / "dev.csv").unlink()
    lines.append(f"two training files\n    {message(two, {})}\n")
    (two / "train.csv").unlink()
    (two / "dev.tsv").unlink()
    lines.append(f"no validation file\n    {message(two, {})}\n")
    lines.append(f"unknown name\n    {message(tmp_path, {'name': 'sst-2', 'files': None})}\n")
    found = "".join(lines)
    if os.environ.get("WRITE_GOLDEN"):
        GOLDEN.write_text(found)
    assert found == GOLDEN.read_text()


def test_a_line_that_is_no_row_is_refused_before_it_is_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "MOST_LINE_BYTES", 1000)
    path = tmp_path / "long.tsv"
    path.write_text("text\tlabel\ngood\tyes\n" + "word " * 1000 + "\tno\n")
    readers = (lambda: text_files.decoded(path), lambda: [*text_files.stream(path, TaskSpec(name="x"), pairs=False)])
    for read in readers:
        with pytest.raises(HarnessError, match=r"long\.tsv, line 3: the line is too long for a row"):
            read()
    assert text_files.decoded(path, in_lines=False) == path.read_text()


def test_a_label_of_thousands_of_digits_is_refused(tmp_path):
    path = tmp_path / "label.tsv"
    path.write_text("text\tlabel\ngood\t1\nbad\t" + "7" * 6000 + "\n")
    task = TaskSpec(name="x", files={"train": str(path), "validation": str(tmp_path / "label2.tsv")})
    (tmp_path / "label2.tsv").write_text("text\tlabel\ngood\t1\nbad\t2\n")
    readers = (lambda: tasks.load(task), lambda: [*text_files.stream(path, task, pairs=False)])
    for read in readers:
        with pytest.raises(HarnessError, match=r"line 3: the label '7{59}…' is too long \(got 6,000 characters\)"):
            read()


def test_what_is_no_regular_file_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "train.tsv")
    with pytest.raises(HarnessError, match="it is no regular file"):
        text_files.decoded(tmp_path / "train.tsv")


SEMICOLONS = 'text;label\n"good, fine";pos\nbad;neg\n'


def test_a_csv_file_with_semicolons_is_read(tmp_path):
    path = folder(tmp_path, SEMICOLONS, SEMICOLONS.replace("good, fine", "well"), "csv")
    raw = tasks.load(TaskSpec.model_validate({"name": "own", "files": str(path)}))
    assert raw.train.texts == ("good, fine", "bad")
    rows = [
        (line.text, line.label) for line in text_files.stream(path / "train.csv", TaskSpec(name="own"), False, True)
    ]
    assert rows == [("good, fine", "pos"), ("bad", "neg")]


def test_files_in_another_encoding_are_read_by_its_name(tmp_path):
    text = "text\tlabel\n映画は良い。表\tpos\n悪い\tneg\n"  # 表 ends with the byte of a backslash
    path = folder(tmp_path, text, text.replace("映画", "音楽"))
    for name in ("train.tsv", "dev.tsv"):
        (path / name).write_bytes((path / name).read_text().encode("shift_jis"))
    spec = {"name": "own", "files": str(path), "encoding": "shift_jis"}
    assert tasks.load(TaskSpec.model_validate(spec)).train.texts == ("映画は良い。表", "悪い")
    rows = text_files.stream(path / "train.tsv", TaskSpec(name="own", encoding="shift_jis"), False, True)
    assert next(rows).text == "映画は良い。表"
    assert "set task.encoding (for example: task.encoding=shift_jis)" in message(path, {})
    (path / "train.tsv").write_bytes("text\tlabel\nfin\xff\tpos\n".encode("latin-1"))
    assert "line 2: not text in shift_jis: byte 0xff" in message(path, {"encoding": "shift_jis"})


def test_a_field_may_be_of_any_length_and_other_readers_keep_their_limit(tmp_path):
    """Also where two files are read in turns, or one is left before its end: the limit is the whole process's."""
    limit, long = csv.field_size_limit(), "a" * 200_000
    task = TaskSpec(name="own")
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text(f"text,label\n{long},0\n{long},1\n")
    first, second = (text_files.stream(tmp_path / name, task, False, True) for name in ("a.csv", "b.csv"))
    assert len(next(first).text) == len(next(second).text) == len(long)
    assert csv.field_size_limit() == limit
    assert len([*first, *second]) == 2
    left = text_files.stream(tmp_path / "a.csv", task, False, True)
    next(left)
    assert csv.field_size_limit() == limit
