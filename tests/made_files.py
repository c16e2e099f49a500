"""Shared by the tests of tasks: files of texts and labels, and where real ones may lie."""

from pathlib import Path

import pytest

from harness.config.recipe import TaskSpec

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
