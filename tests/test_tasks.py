"""Tasks from real files, made files, bad files, the shipped language and a stand-in for the hub."""

import csv
import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import hub, tasks
from harness.sweep import HarnessError, TaskSpec

GOLDEN = Path(__file__).parent / "golden" / "task_errors.txt"
DATA = Path(__file__).parents[2] / "shared" / "data"
real_data = pytest.mark.skipif(not DATA.is_dir(), reason="the real data sets do not lie beside this checkout")


def spec(name="own", files=None, **fields):
    return TaskSpec.model_validate({"name": name, "files": str(files) if isinstance(files, Path) else files, **fields})


def folder(path, train, validation, suffix="tsv"):
    """Write the two files, text or bytes, and give their folder."""
    path.mkdir(parents=True, exist_ok=True)
    for stem, content in (("train", train), ("dev", validation)):
        (path / f"{stem}.{suffix}").write_bytes(content.encode() if isinstance(content, str) else content)
    return path


GOOD = "text\tlabel\ngood film\tpos\nbad film\tneg\n"


# ------------------------------------------------------------------------------------------------------- real data


@real_data
def test_real_rte():
    raw = tasks.load(spec("rte", DATA / "rte"))
    assert (raw.metric, raw.label_names) == ("accuracy", ("entailment", "not_entailment"))
    assert np.bincount(raw.train.labels).tolist() == [1249, 1241]
    assert np.bincount(raw.validation.labels).tolist() == [146, 131]
    assert raw.train.texts[0] == "No Weapons of Mass Destruction Found in Iraq Yet."
    assert raw.train.pairs[0] == "Weapons of Mass Destruction Found in Iraq."
    assert sum('"' in one + two for one, two in zip(raw.train.texts, raw.train.pairs, strict=True)) == 454
    assert tasks.sizes(spec("rte", DATA / "rte")) == tasks.sizes(spec("rte")) == (2490, 277)


def test_stsb_goes_by_its_name_from_the_official_files(tmp_path):
    header = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n"
    row = '{0}\tmain-captions\tMSRvid\t2012test\t000{0}\tnone\tnone\tA "plane" rises.\tAn air plane rises.\t{1}\n'
    rows = header + "".join(row.format(number, score) for number, score in enumerate(("5.000", "0.000", "3.8")))
    raw = tasks.load(spec("stsb", folder(tmp_path, rows, rows)))
    assert (raw.metric, raw.label_names) == ("pearson", None)
    assert raw.train.labels.tolist() == pytest.approx([5.0, 0.0, 3.8])
    assert raw.train.texts[0] == 'A "plane" rises.'
    assert raw.train.pairs[0] == "An air plane rises."
    assert tasks.load(spec("stsb", tmp_path, metric="spearman")).metric == "spearman"


@real_data
def test_real_sst2():
    raw = tasks.load(spec("sst2", DATA / "sst2_small"))
    assert (raw.metric, raw.label_names, raw.train.pairs) == ("accuracy", ("0", "1"), None)
    assert np.bincount(raw.train.labels).tolist() == [2994, 3741]
    assert np.bincount(raw.validation.labels).tolist() == [428, 444]
    assert raw.validation.texts[0] == "it 's a charming and often affecting journey . "


@real_data
def test_real_japanese_without_header():
    raw = tasks.load(spec("chabsa", DATA / "ja_chabsa_2class", text=0, label=1, header=False))
    assert np.bincount(raw.train.labels).tolist() == [801, 1169]
    assert np.bincount(raw.validation.labels).tolist() == [342, 501]
    assert raw.train.labels[:801].sum() == 0  # in the file's order
    assert sum('"' in text for text in raw.train.texts) == 1
    assert max(map(len, raw.train.texts + raw.validation.texts)) == 401


# ------------------------------------------------------------------------------------------------- the embedded task


def test_embedded():
    raw = tasks.load(spec("embedded"))
    assert (raw.metric, raw.label_names) == ("accuracy", ("not_entailment", "entailment"))
    assert np.bincount(raw.train.labels).tolist() == [500, 500]
    assert np.bincount(raw.validation.labels).tolist() == [200, 200]
    assert tasks.sizes(spec("embedded")) == (1000, 400)
    assert raw.sha256 == tasks.load(spec("embedded")).sha256


# --------------------------------------------------------------------------------------------------------- formats

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


def test_the_hash_tells_data_apart(tmp_path):
    def sha(name, train, validation=GOOD):
        return tasks.load(spec(files=folder(tmp_path / name, train, validation))).sha256

    same = sha("a", GOOD)
    assert sha("b", GOOD) == same
    assert sha("c", GOOD.replace("good film", "good  film")) != same
    assert sha("d", "text\tlabel\nbad film\tneg\ngood film\tpos\n") != same  # the order counts
    assert sha("e", GOOD, GOOD.replace("good", "fine")) != same
    spelling = [content.replace("neg", "0").replace("pos", "1") for content in (GOOD, GOOD)]
    assert sha("f", *spelling) == same  # the spelling of the labels does not


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


@pytest.mark.parametrize(
    ("written", "names"),
    [
        (["10", "9", "-1"], ("-1", "9", "10")),
        (["1.5", "b", "B"], ("1.5", "B", "b")),
        (["true", "false"], ("false", "true")),
        ([" neutral", "entailment ", "contradiction"], ("contradiction", "entailment", "neutral")),
    ],
)
def test_labels_are_numbered_in_order(tmp_path, written, names):
    content = "text\tlabel\n" + "".join(f"x\t{label}\n" for label in written)
    raw = tasks.load(spec(files=folder(tmp_path, content, content)))
    assert raw.label_names == names
    assert [names[label] for label in raw.train.labels] == [label.strip() for label in written]
    assert raw.train.labels.dtype == np.int64


def test_json_labels_may_be_numbers_and_truth_values(tmp_path):
    rows = '{"text": "a", "label": %s}\n{"text": "b", "label": %s}\n'
    raw = tasks.load(spec(files=folder(tmp_path, rows % ("true", "false"), rows % ("true", "true"), "jsonl")))
    assert raw.label_names == ("false", "true")
    raw = tasks.load(spec(files=folder(tmp_path, rows % (10, 9), rows % (9, 9), "jsonl")))
    assert raw.label_names == ("9", "10")


def test_regression_labels_are_numbers(tmp_path):
    content = "text\ttext_pair\tlabel\na\tb\t0.5\nc\td\t5\n"
    raw = tasks.load(spec(files=folder(tmp_path, content, content), metric="spearman"))
    assert raw.label_names is None
    assert raw.train.labels.dtype == np.float32
    assert raw.train.labels.tolist() == [0.5, 5]


# ------------------------------------------------------------------------------------------------------------- GLUE

OFFICIAL = {  # the headers of the official files, and rows of two labels
    "sst2": ("sentence\tlabel", ["{}\t0", "{}\t1"]),
    "mrpc": ("\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String", ["1\t7\t8\t{}\tq", "0\t7\t8\t{}\tq"]),
    "qqp": ("id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate", ["1\t1\t2\t{}\tq\t0", "1\t1\t2\t{}\tq\t1"]),
    "mnli": ("index\tsentence1\tsentence2\tlabel1\tgold_label", ["0\t{}\tq\tx\tneutral", "1\t{}\tq\tx\tentailment"]),
    "qnli": ("index\tquestion\tsentence\tlabel", ["0\t{}\tq\tentailment", "1\t{}\tq\tnot_entailment"]),
    "rte": ("index\tsentence1\tsentence2\tlabel", ["0\t{}\tq\tentailment", "1\t{}\tq\tnot_entailment"]),
    "wnli": ("index\tsentence1\tsentence2\tlabel", ["0\t{}\tq\t0", "1\t{}\tq\t1"]),
    "stsb": ("index\tgenre\tsentence1\tsentence2\tscore", ["0\tx\t{}\tq\t5.000", "1\tx\t{}\tq\t0.8"]),
    "cola": (None, ["gj04\t1\t\t{}", "gj04\t0\t*\t{}"]),
}
ON_THE_HUB = {
    "cola": ("sentence", None, "matthews_correlation"),
    "sst2": ("sentence", None, "accuracy"),
    "mrpc": ("sentence1", "sentence2", "f1"),
    "stsb": ("sentence1", "sentence2", "pearson"),
    "qqp": ("question1", "question2", "f1"),
    "mnli": ("premise", "hypothesis", "accuracy"),
    "qnli": ("question", "sentence", "accuracy"),
    "rte": ("sentence1", "sentence2", "accuracy"),
    "wnli": ("sentence1", "sentence2", "accuracy"),
}


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_glue_files(tmp_path, name):
    header, rows = OFFICIAL[name]
    files = ["\n".join(filter(None, [header, *(row.format(f"{k} {s}") for k, row in enumerate(rows))])) for s in "tv"]
    raw = tasks.load(spec(name, folder(tmp_path, *files)))
    assert raw.train.texts == ("0 t", "1 t")
    assert raw.train.pairs == (None if ON_THE_HUB[name][1] is None else ("q", "q"))
    assert raw.metric == ON_THE_HUB[name][2]
    assert raw.label_names == {
        "stsb": None,
        "mnli": ("entailment", "neutral", "contradiction"),
        "qnli": ("entailment", "not_entailment"),
        "rte": ("entailment", "not_entailment"),
    }.get(name, ("0", "1"))
    if name == "mnli":  # the hub's numbering, not the alphabet's
        assert raw.train.labels.tolist() == [1, 0]
        (tmp_path / "dev.tsv").rename(tmp_path / "dev_matched.tsv")
        assert tasks.load(spec(name, tmp_path)).sha256 == raw.sha256


@pytest.mark.parametrize("name", ON_THE_HUB)
def test_glue_from_the_hub(monkeypatch, tmp_path, name):
    import datasets

    text, pair, metric = ON_THE_HUB[name]
    classes = tasks._GLUE[name].names
    asked = []

    def load_dataset(*request):
        asked.append(request)
        split = {text: ["one", "two"], **({pair: ["three", "" if name == "qqp" else "four"]} if pair else {})}
        split |= {"label": [0.5, 4.0] if name == "stsb" else [1, 0], "idx": [0, 1]}
        kinds = {column: datasets.Value("string") for column in (text, pair) if column}
        kinds["label"] = datasets.Value("float32") if name == "stsb" else datasets.ClassLabel(names=list(classes))
        features = datasets.Features({**kinds, "idx": datasets.Value("int32")})
        made = datasets.Dataset.from_dict(split, features=features)
        return datasets.DatasetDict({"train": made, "validation_matched" if name == "mnli" else "validation": made})

    monkeypatch.setattr(hub, "prepare", lambda: True)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    raw = tasks.load(spec(name))
    assert asked == [("nyu-mll/glue", name)]
    assert raw.train.texts == ("one", "two")
    assert (raw.train.pairs is None) == (pair is None)
    assert raw.metric == metric
    assert raw.label_names == (classes or None)
    assert raw.train.labels.tolist() == ([0.5, 4] if name == "stsb" else [1, 0])
    if name not in ("qqp", "mnli"):  # QQP has blank texts on the hub, which files of one's own may not
        numbers = ["0.5", "4.0"] if name == "stsb" else ["1", "0"]
        rows = [[text, *([pair] if pair else []), "label"]]
        rows += [
            [a, *([b] if pair else []), c] for a, b, c in zip(("one", "two"), ("three", "four"), numbers, strict=True)
        ]
        content = "".join("\t".join(row) + "\n" for row in rows)
        assert tasks.load(spec(name, folder(tmp_path, content, content))).sha256 == raw.sha256


def test_glue_offline_and_not_cached_is_an_error_before_any_import(monkeypatch):
    monkeypatch.setattr(hub, "prepare", lambda: False)
    monkeypatch.setattr(hub, "cached", lambda *_: False)
    monkeypatch.setitem(sys.modules, "datasets", None)  # an import would raise ImportError
    with pytest.raises(HarnessError, match=r"'nyu-mll/glue rte'.*nothing cached.*--set task.files=DIR"):
        tasks.load(spec("rte"))


def test_glue_that_does_not_load_says_why(monkeypatch):
    import datasets

    def load_dataset(*_):
        raise ValueError("Couldn't find cache for nyu-mll/glue for config 'rte'\nAvailable configs: none")

    monkeypatch.setattr(hub, "prepare", lambda: False)
    monkeypatch.setattr(hub, "cached", lambda *_: True)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(HarnessError, match=r"loading it gave ValueError \(Couldn't find cache.*task.files=DIR"):
        tasks.load(spec("rte"))


def test_check_says_at_once_what_can_not_be_had(monkeypatch, tmp_path):
    reached = False
    monkeypatch.setattr(hub, "reachable", lambda: reached)
    monkeypatch.setattr(hub, "cached", lambda *_: False)
    monkeypatch.setattr(tasks, "_read", None)  # would raise if called
    files = folder(tmp_path, GOOD, GOOD)
    tasks.check(spec("embedded"))
    tasks.check(spec("own", files))
    tasks.check(spec("rte", files))
    for bad, match in (
        (spec("rte"), "nothing cached"),
        (spec("own"), "without files"),
        (spec("embedded", files), "drop task.files"),
        (spec("own", tmp_path / "nowhere"), "no such file"),
        (spec("own", files={"train": f"{files}/train.tsv", "validation": f"{files}/test.tsv"}), "test.tsv"),
    ):
        with pytest.raises(HarnessError, match=match):
            tasks.check(bad)
    reached = True
    tasks.check(spec("rte"))


def test_sizes_need_no_heavy_import():
    code = (
        "import sys; from harness import tasks; from harness.sweep import TaskSpec\n"
        "assert tasks.sizes(TaskSpec(name='mnli')) == (392702, 9815)\n"
        "assert tasks.sizes(TaskSpec(name='embedded')) == (1000, 400)\n"
        "assert tasks.sizes(TaskSpec(name='unheard-of')) is None\n"
        "assert not {'torch', 'datasets', 'transformers', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])


# --------------------------------------------------------------------------------------------------------- bad data

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


def test_a_test_split_is_read_where_it_is_named_and_its_hash_is_another(tmp_path):
    path = folder(tmp_path, GOOD, GOOD)
    (path / "test.tsv").write_text("text\tlabel\nfine film\tpos\n")
    without = tasks.load(spec(files=path))
    files = {"train": str(path), "validation": str(path), "test": str(path)}
    raw = tasks.load(spec(files=files))
    assert without.test is None
    assert raw.test.texts == ("fine film",)
    assert raw.test.labels.tolist() == [1]
    assert raw.test.source == str(path / "test.tsv")
    assert raw.sha256 != without.sha256
    assert list(tasks.splits(raw)) == list(tasks.SPLITS)
    assert {split: file.name for split, file in tasks.files_of(spec(files=files)).items()} == {
        "train": "train.tsv", "validation": "dev.tsv", "test": "test.tsv",
    }  # fmt: skip
    # The hash of data without a test split is what it was before there were any.
    assert without.sha256 == "2200988b1b4a65589f724df067e93a501e0a23fb923564185892a9f979a5725c"


# --------------------------------------------------------------------------------------------------- words and tags


def test_words_and_tags_of_every_format(tmp_path):
    """Tabs, blanks with more columns as CoNLL-2003 has them, and JSON; the hash is of words and tags alone."""
    lists = [(["good", "old", "film"], ["O", "B-X", "I-X"]), (["bad"], ["B-Y"])]
    versions = {
        "tsv": TAGGED,
        "conll": "-DOCSTART- -X- O\n\ngood JJ O\r\nold JJ B-X\r\nfilm NN I-X\n\n\nbad JJ B-Y",
        "jsonl": "".join(json.dumps({"words": words, "tags": tags}) + "\n" for words, tags in lists),
        "txt": "word\ttag\n" + TAGGED,
    }
    hashes = set()
    for suffix, content in versions.items():
        fields = {"header": True} if suffix == "txt" else {}
        raw = tasks.load(spec(files=folder(tmp_path / suffix, content, content, suffix), kind="tokens", **fields))
        assert (raw.metric, raw.label_names) == ("f1_entity", ("O", "B-X", "I-X", "B-Y", "I-Y"))
        assert raw.train.words == (("good", "old", "film"), ("bad",))
        assert raw.train.texts == ("good old film", "bad")
        assert raw.train.labels.tolist() == [[0, 1, 2], [3, -100, -100]]
        first = {"tsv": [1, 5], "conll": [3, 8], "jsonl": [1, 2], "txt": [2, 6]}[suffix]
        assert list(raw.train.numbers) == first
        hashes.add(raw.sha256)
    assert len(hashes) == 1
    columns = spec(files=folder(tmp_path / "other", "1\tO\told\tB-X\n", "1\tO\tbad\tO\n"), kind="tokens", text=2)
    assert tasks.load(columns).train.words == (("old",),)


def test_labels_stand_on_a_words_first_token(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "old", "##er", "good", "-", "film"]
    made = Tokenizer(models.WordPiece({word: number for number, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]")
    lists = [(["older", "good-film", "film"], ["B-X", "I-X", "O"]), (["old"], ["B-X"])]
    content = "".join(json.dumps({"words": words, "tags": tags}) + "\n" for words, tags in lists)
    raw = tasks.load(spec(files=folder(tmp_path, content, content, "jsonl"), kind="tokens"))
    task = tasks.tokenise(raw, tokenizer, 128)
    assert task.train.input_ids.tolist() == [[1, 4, 5, 6, 7, 8, 8, 2], [1, 4, 2, 3, 3, 3, 3, 3]]
    assert task.train.labels.tolist() == [[-100, 1, -100, 2, -100, -100, 0, -100], [-100, 1, *[-100] * 6]]
    assert task.train.sentences.tolist() == [3, 1]
    assert task.train.targets.tolist() == [1, 2, 0, 1]
    assert (task.num_labels, task.metric) == (3, "f1_entity")
    # What is cut off of a training sentence is left out; a sentence that is scored is refused.
    with pytest.raises(HarnessError, match=r"dev.jsonl, line 1\): got 2 of 3 words within max_length 7"):
        tasks.tokenise(raw, tokenizer, 7)
    short = folder(tmp_path / "short", content, content.splitlines()[1], "jsonl")
    cut = tasks.tokenise(tasks.load(spec(files=short, kind="tokens")), tokenizer, 7)
    assert cut.train.sentences.tolist() == [2, 1]
    assert cut.train.labels[0].tolist() == [-100, 1, -100, 2, -100, -100, -100]

    class Slow:
        pad_token_id = 3
        num_special_tokens_to_add = tokenizer.num_special_tokens_to_add

        def __call__(self, *texts, **options):
            raise NotImplementedError

    with pytest.raises(HarnessError, match="says where its tokens stand"):
        tasks.tokenise(raw, Slow(), 128)


# ----------------------------------------------------------------------------------------------------------- tokens


@pytest.fixture(scope="module")
def tokenizer():
    """A BERT tokeniser of whole words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", *"abcdefghij"]
    made = Tokenizer(models.WordLevel({word: number for number, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        padding_side="left",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def raw_of(tmp_path, train, validation):
    rows = "text\ttext_pair\tlabel\n{}\nb\tb\t1\n"
    return tasks.load(spec(files=folder(tmp_path, rows.format(train), rows.format(validation))))


def test_tokens_of_pairs(tmp_path, tokenizer):
    task = tasks.tokenise(raw_of(tmp_path, "a b c\td\t0", "a\ta zebra\t0"), tokenizer, 128)
    assert task.train.input_ids.tolist() == [[1, 4, 5, 6, 2, 7, 2], [1, 5, 2, 5, 2, 3, 3]]
    assert task.train.token_type_ids.tolist() == [[0, 0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 0, 0]]
    assert task.train.lengths.tolist() == [7, 5]
    assert task.validation.input_ids.tolist() == [[1, 4, 2, 4, 0, 2, 3], [1, 5, 2, 5, 2, 3, 3]]  # as long as train's
    for split in (task.train, task.validation):
        assert split.sentences is None
        assert {array.dtype for array in vars(split).values() if array is not None} == {np.dtype(np.int64)}
        assert split.labels.tolist() == [0, 1]
    assert (task.num_labels, task.label_names, task.pad_token_id) == (2, ("0", "1"), 3)


def test_the_longer_text_is_cut_first(tmp_path, tokenizer):
    task = tasks.tokenise(raw_of(tmp_path, "a b c d e f\tg h\t0", "a\tb\t0"), tokenizer, 7)
    assert task.train.input_ids[0].tolist() == [1, 4, 5, 2, 10, 11, 2]
    assert task.train.input_ids.shape == (2, 7)


def test_a_tokenizer_without_segments_gives_zeros(tmp_path, tokenizer):
    class Plain:
        pad_token_id = 3
        num_special_tokens_to_add = tokenizer.num_special_tokens_to_add

        def __call__(self, *texts, **options):
            return tokenizer(*texts, return_token_type_ids=False, **options)

    task = tasks.tokenise(raw_of(tmp_path, "a b c\td\t0", "a\tb\t0"), Plain(), 128)
    assert task.train.token_type_ids.tolist() == np.zeros((2, 7)).tolist()


def test_a_regression_has_one_logit(tmp_path, tokenizer):
    content = "text\tlabel\na\t0.5\nb c\t5\n"
    task = tasks.tokenise(tasks.load(spec(files=folder(tmp_path, content, content), metric="pearson")), tokenizer, 128)
    assert (task.num_labels, task.label_names) == (1, None)
    assert task.train.labels.dtype == np.float32
    assert task.train.input_ids.tolist() == [[1, 4, 2, 3], [1, 5, 6, 2]]


def test_what_a_tokenizer_can_not_do(tmp_path, tokenizer):
    class Silent:
        pad_token_id = 3

        def __init__(self, pad_token_id=3):
            self.pad_token_id = pad_token_id

        def num_special_tokens_to_add(self, pair=False):
            return 0

        def __call__(self, texts, pairs=None, **_):
            return {"input_ids": [[5] if text == "a" else [] for text in texts]}

    raw = raw_of(tmp_path, "a\tb\t0", "a\tb\t0")
    with pytest.raises(HarnessError, match="got 4; allowed: 5 or more"):
        tasks.tokenise(raw, tokenizer, 4)
    with pytest.raises(HarnessError, match="has a padding token"):
        tasks.tokenise(raw, Silent(None), 128)
    with pytest.raises(HarnessError, match="none for example 2 of the train split"):
        tasks.tokenise(raw, Silent(), 128)


@real_data
def test_tokens_of_real_data(tokenizer):
    task = tasks.tokenise(tasks.load(spec("rte", DATA / "rte")), tokenizer, 64)
    assert task.train.input_ids.shape == (2490, 64)
    assert task.validation.input_ids.shape == (277, 64)
    places = np.arange(64) < task.train.lengths[:, None]
    assert ((task.train.input_ids == task.pad_token_id) == ~places).all()
