from made_files import GOOD, folder, spec

from harness.data import tasks


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
