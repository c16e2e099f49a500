"""Arrays are read as numpy reads them, or refused; a file that asks for more memory than it holds is not unpacked."""

import io
import struct
import tracemalloc
import zipfile
from collections.abc import Callable

import numpy as np
import pytest

from harness.common import npz

ARRAYS = {"a": np.arange(1000), "b": np.zeros((0, 3)), "layer_norm": np.array(["x", "y"]), "c": np.eye(3)[:, :2].T}


def made(save: Callable[..., None] = np.savez_compressed, **arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    save(buffer, **(arrays or ARRAYS))
    return buffer.getvalue()


def same(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> bool:
    return first.keys() == second.keys() and all(
        one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
        for one, other in ((first[name], second[name]) for name in first)
    )


@pytest.mark.parametrize("save", [np.savez_compressed, np.savez])
def test_arrays_are_those_of_numpy(save: Callable[..., None]) -> None:
    content = made(save)
    read = npz.read_arrays(content)
    assert same(read, ARRAYS)
    assert all(array.flags.writeable for array in read.values())
    assert list(npz.read_arrays(content, without="layer_")) == ["a", "b", "c"]
    assert list(npz.read_arrays(content, members={"c"})) == ["c"]


def test_what_numpy_does_not_write_is_left_to_zipfile() -> None:
    buffer, array = io.BytesIO(), io.BytesIO()
    np.save(array, np.arange(5))
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ä.npy", array.getvalue())
        archive.comment = b"a comment"
    assert same(npz.read_arrays(buffer.getvalue()), {"ä": np.arange(5)})
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("a.npy", array.getvalue())
        archive.comment = b"a comment"
    with pytest.raises(npz.ArraysError, match="another method"):
        npz.read_arrays(buffer.getvalue())


def test_damage_is_found_wherever_it_is() -> None:
    """Of every byte changed, and of every cut, all arrays are read as they were, or not all are there."""
    content = made()
    refused = 0
    for place in range(len(content)):
        for damaged in (content[:place], content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :]):
            try:
                read = npz.read_arrays(damaged)
            except npz.ArraysError:
                refused += 1
                continue
            if read.keys() == ARRAYS.keys():  # else a directory was cut, of which one array less is left
                assert same(read, ARRAYS)
            refused += read.keys() != ARRAYS.keys()
    assert refused > len(content)


def _with_size(content: bytes, size: int) -> bytes:
    """The archive with another size of its one member in the directory."""
    entry = content.index(b"PK\1\2")
    return content[: entry + 24] + struct.pack("<L", size) + content[entry + 28 :]


def test_a_bomb_is_not_unpacked() -> None:
    """What unpacks to 16 MiB, under three headers, costs an eighth of that."""
    zeros = np.zeros(2**21)
    bomb = made(a=zeros)
    assert len(bomb) < 2**17
    start = io.BytesIO()
    np.lib.format.write_array_header_1_0(start, {"descr": "<f8", "fortran_order": False, "shape": (10**15,)})
    lie = io.BytesIO()
    with zipfile.ZipFile(lie, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", start.getvalue() + bytes(2**24))
    tracemalloc.start()
    try:
        for content, given, words in (
            (bomb, {"most_bytes": 2**20}, "more than"),
            (bomb, {"rows": {"a": 60}}, "for 60 rows"),
            (_with_size(bomb, 1000), {}, "holds 1,000 bytes for an array"),
            (lie.getvalue(), {}, r"for an array \(1000000000000000,\)"),
        ):
            with pytest.raises(npz.ArraysError, match=words):
                npz.read_arrays(content, **given)
        assert tracemalloc.get_traced_memory()[1] < 2**21
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.array([{}], dtype=object), "allow_pickle=False"),
        (np.array(["2020"], dtype="datetime64[Y]"), "neither numbers nor texts"),
        (np.zeros(2, dtype=[("x", float)]), "neither numbers nor texts"),
        (np.zeros(2, dtype=complex), "neither numbers nor texts"),
    ],
)
def test_only_numbers_and_texts_are_read(array: np.ndarray, words: str) -> None:
    with pytest.raises(npz.ArraysError, match=words):
        npz.read_arrays(made(a=array))


def test_many_members_and_odd_headers_are_refused() -> None:
    with pytest.raises(npz.ArraysError, match="101 arrays"):
        npz.read_arrays(made(**{f"a{number}": np.zeros(1) for number in range(101)}))
    for start in (b"", b"\x93NUMPY\1\0\xff\xff", b"\x93NUMPY\3\0", b"no array at all"):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("a.npy", start)
        with pytest.raises(npz.ArraysError):
            npz.read_arrays(buffer.getvalue())
