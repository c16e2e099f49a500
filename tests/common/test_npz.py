"""Archives are read as `zipfile` reads them, or refused where it refuses them."""

import io
import zipfile
import zlib
from collections.abc import Callable

import numpy as np
import pytest

from harness.common import npz


def made(save: Callable[..., None] = np.savez_compressed) -> bytes:
    buffer = io.BytesIO()
    save(buffer, a=np.arange(1000), b=np.zeros((0, 3)), layer_norm=np.array(["x", "y"]))
    return buffer.getvalue()


@pytest.mark.parametrize("save", [np.savez_compressed, np.savez])
def test_members_are_those_of_zipfile(save: Callable[..., None]) -> None:
    content = made(save)
    ours, theirs = npz.opened(content), zipfile.ZipFile(io.BytesIO(content))
    assert isinstance(ours, npz.Archive)
    assert ours.namelist() == theirs.namelist()
    assert [ours.read(name) for name in ours.namelist()] == [theirs.read(name) for name in theirs.namelist()]
    with pytest.raises(KeyError):
        ours.read("c.npy")


def test_what_numpy_does_not_write_is_left_to_zipfile() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("ä.npy", b"content")
        archive.comment = b"a comment"
    found = npz.opened(buffer.getvalue())
    assert isinstance(found, zipfile.ZipFile)
    assert found.read("ä.npy") == b"content"


def test_damage_is_found_wherever_it_is() -> None:
    """Of every byte changed, and of every cut, each member is read as it was or not at all."""
    content = made()
    whole = {name: npz.opened(content).read(name) for name in npz.opened(content).namelist()}
    refused = 0
    for place in range(len(content)):
        for damaged in (content[:place], content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :]):
            try:
                archive = npz.opened(damaged)
                found = {name: archive.read(name) for name in whole}
            except (zipfile.BadZipFile, zlib.error, KeyError, ValueError, NotImplementedError, EOFError, RuntimeError):
                refused += 1
                continue
            except OSError:
                refused += 1
                continue
            assert found == whole
    assert refused > len(content)
