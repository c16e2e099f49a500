"""A result is kept for as long as its object lives, and for that object alone."""

import gc
from dataclasses import dataclass

from harness.common.memo import once_per_object


@dataclass(frozen=True)
class Box:
    content: list[int]  # which can't be hashed


def test_an_object_is_asked_once_and_equal_ones_each():
    calls = []

    @once_per_object
    def total(box: Box) -> int:
        calls.append(box.content)
        return sum(box.content)

    first, second = Box([1, 2]), Box([1, 2])
    assert [total(first), total(first), total(second)] == [3, 3, 3]
    assert len(calls) == 2
    del first
    gc.collect()
    for number in range(50):  # one of them may have the address of the first
        assert total(Box([number])) == number
