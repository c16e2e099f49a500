"""Whether a trial's arrays can be read, and are of the shapes and kinds that its record calls for."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Iterator
from functools import lru_cache
from typing import cast

import numpy as np

from harness.common import metrics
from harness.records.record import OPTIONAL, RECORDED, Curves, Measured, Recording

# The kinds of numpy's dtypes that a curve may have; [S] over steps, [E] over evaluations.
_BY_STEP = {"train_loss": "f", "lr": "f", "grad_norm": "f"}
_BY_EVALUATION = {"eval_step": "iu", "dev_loss": "f", "dev_score": "f"}


def read_arrays(content: bytes) -> Curves | str:
    """The arrays of an .npz, or why they can't be read; nothing is unpickled, and each is held against its checksum."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            arrays = {name.removesuffix(".npy"): _array(archive.read(name)) for name in archive.namelist()}
    except (Exception, MemoryError) as error:  # zip, zlib and numpy raise a dozen kinds on damaged bytes
        return f"they can't be read: {type(error).__name__}: {error}"
    known = set(Curves.__dataclass_fields__) - {"recording"}
    recorded = {name for name in arrays if name.startswith(RECORDED)}
    if recorded:
        known |= {f"{RECORDED}{name}" for name in Recording.__dataclass_fields__}
    lacking, other = sorted(known - OPTIONAL - set(arrays)), sorted(set(arrays) - known)
    if lacking or other:
        problems = [f"lacking {', '.join(lacking)}"] * bool(lacking) + [f"unknown {', '.join(other)}"] * bool(other)
        return "; ".join(problems)
    recording = None
    if recorded:
        recording = Recording(**{name.removeprefix(RECORDED): arrays.pop(name) for name in sorted(recorded)})
    return Curves(**arrays, recording=recording)


def _array(content: bytes) -> np.ndarray:
    """An .npy file's array. Raises ValueError for pickled objects and whatever else is no plain array."""
    # The header of format 1.0, which numpy writes for these: magic, version, its length in two bytes, the text.
    if content[:8] != b"\x93NUMPY\x01\x00":
        return cast(np.ndarray, np.load(io.BytesIO(content), allow_pickle=False))
    end = 10 + int.from_bytes(content[8:10], "little")
    shape, fortran, dtype = _header(content[8:end])
    if dtype.hasobject:
        raise ValueError("Object arrays cannot be loaded when allow_pickle=False")
    if len(content) - end != dtype.itemsize * math.prod(shape):
        raise ValueError(f"{len(content) - end} bytes for an array {shape} of {dtype}")
    array = np.frombuffer(content, dtype, offset=end)
    return array.reshape(shape, order="F" if fortran else "C")


@lru_cache(maxsize=256)  # ten thousand records share a dozen headers, and reading one is most of reading an array
def _header(text: bytes) -> tuple[tuple[int, ...], bool, np.dtype]:
    return np.lib.format.read_array_header_1_0(io.BytesIO(text))


def check_shapes(curves: Curves, measured: Measured) -> Iterator[str]:
    """Whether the arrays are [S], [E], [N, C] and [N] of numbers, with S and N as in the record."""
    evaluations = curves.eval_step.size
    sizes = [(_BY_STEP, measured.steps, "steps"), (_BY_EVALUATION, evaluations, "evaluations")]
    fine = evaluations > 0
    if not fine:
        yield "there is no evaluation"
    for kinds, length, unit in sizes:
        for name, kind in kinds.items():
            array = getattr(curves, name)
            if array.shape != (length,) or array.dtype.kind not in kind:
                fine = False
                yield f"{name} is {array.dtype} {array.shape} for {length} {unit}"
    dev, test = (curves.logits, curves.labels), (curves.test_logits, curves.test_labels)
    splits = [
        ("", "dev", dev, curves.sentences, measured.dev_examples),
        ("test_", "test", test, curves.test_sentences, measured.test_examples or 0),
    ]
    for before, split, (logits, labels), sentences, examples in splits:
        if measured.metric == metrics.ENTITIES:
            if sentences.shape != (examples,) or sentences.dtype.kind != "i":
                yield f"{before}sentences are {sentences.dtype} {sentences.shape} for {examples} {split} examples"
                continue
            examples, split = int(sentences.sum()), f"{split} words of"
        if logits.ndim != 2 or len(logits) != examples or logits.dtype.kind != "f":
            yield f"{before}logits are {logits.dtype} {logits.shape} for {examples} {split} examples"
        if labels.shape != (examples,) or labels.dtype.kind not in "iuf":
            yield f"{before}labels are {labels.dtype} {labels.shape} for {examples} {split} examples"
    if fine:
        steps = curves.eval_step.astype(np.int64)
        if steps[0] < 0 or steps[-1] != measured.steps or (np.diff(steps) <= 0).any():
            yield f"eval_step does not rise to the last step, {measured.steps}: {steps[:3].tolist()} … {steps[-1]}"
    if curves.recording is not None:
        yield from _check_recording(curves.recording, measured, evaluations)


def _check_recording(recording: Recording, measured: Measured, evaluations: int) -> Iterator[str]:
    """Whether the arrays of a recording belong together, and to the run's updates and evaluations."""
    updates, layers = recording.update.size, recording.layers.size
    shapes: dict[str, tuple[tuple[int, ...], str]] = {
        "layers": ((layers,), "U"),
        "update": ((updates,), "iu"),
        "layer_norm": ((updates, layers), "f"),
        "update_norm": ((updates,), "f"),
        "weight_norm": ((updates,), "f"),
        "predicted": ((evaluations, *recording.predicted.shape[1:2]), "iu"),
        "cls_rank": ((evaluations,), "f"),
        "cls_cosine": ((evaluations,), "f"),
    }
    fine = True
    for name, (shape, kind) in shapes.items():
        array = getattr(recording, name)
        if array.shape != shape or array.dtype.kind not in kind:
            fine = False
            yield f"{RECORDED}{name} is {array.dtype} {array.shape} instead of {shape}"
    if not fine:
        return
    at = recording.update.astype(np.int64)
    if not updates or at[0] < 1 or at[-1] > measured.steps or (np.diff(at) <= 0).any():
        yield f"{RECORDED}update does not rise within the {measured.steps} steps"
    if not set(recording.predicted.sum(axis=1).tolist()) <= {0, measured.dev_examples}:
        yield f"{RECORDED}predicted does not count the {measured.dev_examples} dev examples"
