"""Only regular files of a bounded size are read: no FIFO blocks, no link is followed."""

import os
import socket
from pathlib import Path

import pytest

from harness.common import files


def test_a_file_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    for content in (b"", b"abc", bytes(range(256)) * 40):
        path.write_bytes(content)
        assert files.read_regular(path, len(content)) == content
        monkeypatch.setattr(files, "_PIECE", 7)
        assert files.read_regular(str(path), 2**20) == content
        monkeypatch.undo()
    with pytest.raises(FileNotFoundError):
        files.read_regular(tmp_path / "y", 10)
    with pytest.raises(OSError, match="10,240 bytes, more than the 10,239"):
        files.read_regular(path, 10_239)


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "file")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "socket"))
    with (tmp_path / "huge").open("wb") as stream:
        stream.truncate(2**40)
    for name, words in (
        ("fifo", "a FIFO"), ("folder", "a folder"), ("link", "a symbolic link"), ("socket", "a socket"),
        ("huge", "1,099,511,627,776 bytes"),
    ):  # fmt: skip
        with pytest.raises(OSError, match=words):
            files.read_regular(tmp_path / name, 2**20)
    with pytest.raises(OSError, match="a device"):
        files.read_regular("/dev/zero", 2**20)
