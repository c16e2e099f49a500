"""Tasks from real files, made files, the shipped language and a stand-in for the hub."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from made_files import DATA, GOOD, folder, real_data, spec

from harness.common import hub
from harness.common.errors import HarnessError
from harness.data import examples, glue, tasks, text_files


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


def test_embedded():
    raw = tasks.load(spec("embedded"))
    assert (raw.metric, raw.label_names) == ("accuracy", ("not_entailment", "entailment"))
    assert np.bincount(raw.train.labels).tolist() == [500, 500]
    assert np.bincount(raw.validation.labels).tolist() == [200, 200]
    assert tasks.sizes(spec("embedded")) == (1000, 400)
    assert raw.sha256 == tasks.load(spec("embedded")).sha256


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


def test_regression_labels_are_numbers(tmp_path):
    content = "text\ttext_pair\tlabel\na\tb\t0.5\nc\td\t5\n"
    raw = tasks.load(spec(files=folder(tmp_path, content, content), metric="spearman"))
    assert raw.label_names is None
    assert raw.train.labels.dtype == np.float32
    assert raw.train.labels.tolist() == [0.5, 5]


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
OFFICIAL_SUPERGLUE = {  # lines of the official files
    "boolq": [
        '{"question": "q", "passage": "A", "idx": 0, "label": false}',
        '{"question": "q", "passage": "B", "idx": 1, "label": true}',
    ],
    "cb": [
        '{"premise": "A", "hypothesis": "q", "label": "neutral", "idx": 0}',
        '{"premise": "B", "hypothesis": "q", "label": "contradiction", "idx": 1}',
    ],
    "rte": [
        '{"premise": "A", "hypothesis": "q", "label": "not_entailment", "idx": 0}',
        '{"premise": "B", "hypothesis": "q", "label": "entailment", "idx": 1}',
    ],
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
    "boolq": ("passage", "question", "accuracy"),
    "cb": ("premise", "hypothesis", "accuracy"),
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


@pytest.mark.parametrize("name", OFFICIAL_SUPERGLUE)
def test_official_superglue_files(tmp_path, name):
    for split in ("train", "val"):
        (tmp_path / f"{split}.jsonl").write_text("\n".join(OFFICIAL_SUPERGLUE[name]) + "\n")
    raw = tasks.load(spec(name, tmp_path))
    assert raw.train.texts == ("A", "B")
    assert raw.train.pairs == ("q", "q")
    numbers = {"boolq": [0, 1], "cb": [2, 1], "rte": [1, 0]}  # the hub's
    assert raw.train.labels.tolist() == numbers[name]
    assert raw.metric == "accuracy"


@pytest.mark.parametrize("name", ON_THE_HUB)
def test_glue_from_the_hub(monkeypatch, tmp_path, name):
    import datasets

    text, pair, metric = ON_THE_HUB[name]
    classes = glue.GLUE[name].names
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
    assert asked == [("aps/super_glue" if name in ("boolq", "cb") else "nyu-mll/glue", name)]
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
    with pytest.raises(
        HarnessError, match=r"'nyu-mll/glue rte': it is not in this machine's cache.*--set task.files=DIR"
    ):
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
    monkeypatch.setattr(tasks, "read", None)  # would raise if called
    files = folder(tmp_path, GOOD, GOOD)
    tasks.check(spec("embedded"))
    tasks.check(spec("own", files))
    tasks.check(spec("rte", files))
    for bad, match in (
        (spec("rte"), "it is not in this machine's cache"),
        (spec("own"), "unknown task"),
        (spec("embedded", files), "Remove task.files"),
        (spec("own", tmp_path / "nowhere"), "no such file"),
        (spec("own", files={"train": f"{files}/train.tsv", "validation": f"{files}/test.tsv"}), "test.tsv"),
    ):
        with pytest.raises(HarnessError, match=match):
            tasks.check(bad)
    reached = True
    tasks.check(spec("rte"))


def test_sizes_need_no_heavy_import():
    code = (
        "import sys; from harness.data import tasks; from harness.config.recipe import TaskSpec\n"
        "assert tasks.sizes(TaskSpec(name='mnli')) == (392702, 9815)\n"
        "assert tasks.sizes(TaskSpec(name='embedded')) == (1000, 400)\n"
        "assert tasks.sizes(TaskSpec(name='unheard-of')) is None\n"
        "assert not {'torch', 'datasets', 'transformers', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


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
    assert list(examples.splits(raw)) == list(examples.SPLITS)
    assert {split: file.name for split, file in text_files.files_of(spec(files=files)).items()} == {
        "train": "train.tsv", "validation": "dev.tsv", "test": "test.tsv",
    }  # fmt: skip
    # The hash of data without a test split is what it was before there were any.
    assert without.sha256 == "2200988b1b4a65589f724df067e93a501e0a23fb923564185892a9f979a5725c"
