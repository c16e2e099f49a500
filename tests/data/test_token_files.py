import json

from made_files import folder, spec

from harness.data import tasks

TAGGED = "good\tO\nold\tB-X\nfilm\tI-X\n\nbad\tB-Y\n"


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
