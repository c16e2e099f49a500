"""Files are written whole, and never through a link that somebody put in the way."""

from __future__ import annotations

import errno
import os
import pwd
import tempfile
from pathlib import Path

import pytest

from harness.common import hub
from harness.common.errors import HarnessError
from harness.common.files import is_own_folder, naming, open_lock, user_cache, write
from harness.config.recipe import ModelSpec


def test_a_lock_is_made_and_appended_to(tmp_path: Path) -> None:
    for _ in range(2):
        with open_lock(tmp_path / ".lock") as stream:
            stream.write("held\n")
    assert (tmp_path / ".lock").read_text() == "held\nheld\n"


@pytest.mark.parametrize("kind", ["link", "dangling", "pipe", "folder"])
def test_a_lock_that_is_no_file_of_its_own_is_refused(tmp_path: Path, kind: str) -> None:
    path, mine = tmp_path / ".lock", tmp_path / "mine"
    mine.write_text("mine")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(mine if kind == "link" else tmp_path / "not there")
    with pytest.raises(HarnessError, match=r"cannot lock .*\.lock: it is (a link|no regular file)"):
        open_lock(path)
    assert mine.read_text() == "mine"
    assert not (tmp_path / "not there").exists()


def test_a_link_in_place_of_the_temporary_file_is_not_followed(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("mine")
    (tmp_path / f".plan.json.{os.getpid()}.tmp").symlink_to(mine)
    write(tmp_path / "plan.json", b"{}")
    assert (mine.read_text(), (tmp_path / "plan.json").read_text()) == ("mine", "{}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "plan.json"]


def test_an_own_folder_is_no_link_and_nobody_elses_to_write(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    assert not is_own_folder(folder)
    folder.mkdir(mode=0o700)
    assert is_own_folder(folder)
    (tmp_path / "link").symlink_to(folder)
    assert not is_own_folder(tmp_path / "link")
    folder.chmod(0o777)
    assert not is_own_folder(folder)


def test_an_error_names_the_file_that_could_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        write(tmp_path / "plan.json", b"{}")
    assert caught.value.filename == str(tmp_path / "plan.json")
    assert not list(tmp_path.iterdir())


def test_a_broken_pipe_is_no_files_fault(tmp_path: Path) -> None:
    def broken() -> None:
        with naming(tmp_path):
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError) as caught:
        broken()
    assert caught.value.filename is None


def test_a_user_without_a_home_folder_has_a_cache_of_their_own_among_the_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a container's made-up number is; a command that trains ended with a traceback of pathlib's."""
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_cache() == tmp_path / ".cache" / "stability-harness"
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", lambda number: {}[number])  # as for a number that it does not know
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = user_cache()
    assert folder == tmp_path / f"harness-cache-{os.getuid()}"
    assert is_own_folder(folder)
    folder.rmdir()
    (tmp_path / "theirs").mkdir()
    folder.symlink_to(tmp_path / "theirs")
    with pytest.raises(HarnessError, match=r"cannot keep measurements in \S+: others own it .* Set HOME or XDG_CACHE"):
        user_cache()
    assert hub.folder_of(ModelSpec(name="nobody/none")) is None  # which looks for the hub's cache
