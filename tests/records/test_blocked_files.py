"""No file of a results folder blocks or follows: a FIFO or a link in place of one counts as none, or is an error."""

import os
from pathlib import Path

import pytest

from harness.common.errors import HarnessError
from harness.models import saved
from harness.records import reruns
from harness.records.heartbeat import heartbeat
from harness.records.imported import of_import
from harness.records.store import HEARTBEAT, Store


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: Path(path).symlink_to("/dev/zero"), os.mkdir])
def test_nothing_in_place_of_a_file_is_waited_for(tmp_path: Path, make) -> None:
    for name in (HEARTBEAT, reruns.NAME, "imported.json", saved.CARD, "plan.json", "baselines.json", "surface.npz"):
        make(tmp_path / name)
    store = Store(tmp_path)
    assert heartbeat(tmp_path) is None
    assert reruns.load(tmp_path) == ()
    assert (store.baselines(), store.surface()) == ((), None)
    for read in (lambda: of_import(tmp_path), lambda: saved.read_card(tmp_path), store.load_plan):
        with pytest.raises(HarnessError, match="regular file"):
            read()
