"""A model folder's files, looked at without torch: is all there, is each file whole, is every weight finite."""

from __future__ import annotations

import hashlib
import json
import math
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from harness.common import hub
from harness.common.errors import HarnessError, describe_os_error
from harness.config.recipe import ModelSpec

_SAFE, _PICKLED = "model.safetensors", "pytorch_model.bin"
_HEADER = 100_000_000  # bytes; safetensors itself allows no longer one
_POINTER = b"version https://git-lfs"
# What a tokenizer may be read from, by the beginning or the end of a file's name; and those that need no file.
_VOCABULARIES = ("tokenizer.json", "vocab", "merges", "spiece", "sentencepiece", "dict", "bpe", "source.", "target.")
_VOCABULARY_ENDINGS = (".model", ".tiktoken", ".vocab", ".codes")
_WITHOUT_VOCABULARY = ("ByT5", "Canine", "Perceiver", "CharacterBert")
# What a config.json says that decides no result: where it is from, and what its outputs are, which the task says.
_TOLD = {
    "_name_or_path", "_commit_hash", "architectures", "dtype", "finetuning_task", "id2label", "label2id", "num_labels",
    "problem_type", "torch_dtype", "transformers_version", "use_cache",
}  # fmt: skip
_CHUNK = 2**22  # numbers looked at together
# safetensors' types of floating-point numbers as numpy reads them; bfloat16 as its bits.
_FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


def folder_of(spec: ModelSpec) -> Path | None:
    """The folder of a model whose files lie on this machine; None of one that goes by its name on the hub."""
    return Path(hub.location(spec)) if spec.folder is not None or hub.is_shipped(spec) else None


def check(spec: ModelSpec, key: str = "model.folder") -> None:
    """Raise HarnessError where the files of a model's folder are missing, cut short or no model's; reads no weights.

    `key` is what --set points at a folder with.
    """
    folder = folder_of(spec)
    if folder is None:
        return
    _check_config(folder, key)
    _check_tokenizer(folder, key)
    for path in _weights(folder, key):
        _entries(path, key) if path.suffix == ".safetensors" else _check_pickled(path, key)


def config_sha256(spec: ModelSpec) -> str | None:
    """The hash of what a model's config.json decides, as the file has it; None where it is not on this disk (yet).

    Two networks of the same weights may compute otherwise: by the activation, the heads, the dropout.
    """
    folder = hub.folder_of(spec)
    try:
        path = None if folder is None else folder / "config.json"
        config = json.loads(path.read_bytes()) if path is not None and path.is_file() else None
    except (OSError, ValueError, RecursionError):  # loading it says what is wrong
        return None
    if not isinstance(config, dict):
        return None
    decides = {name: value for name, value in config.items() if name not in _TOLD}
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def check_finite(spec: ModelSpec, key: str = "model.folder") -> None:
    """Raise HarnessError, naming the tensor, where a weight of a model's folder is NaN or infinite; reads all of them.

    Files of torch's own format are read with torch; of all others nothing but numpy is needed.
    """
    folder = folder_of(spec)
    for path in () if folder is None else _weights(folder, key):
        tensors = _safe_tensors(path, key) if path.suffix == ".safetensors" else _pickled_tensors(path, key)
        for name, values, bits in tensors:
            if (where := _not_finite(values, bits)) is not None:
                raise HarnessError(
                    f"the weights of '{spec.name}' are not all finite: {where} in {name} ({path})",
                    fix=f"Restore the checkpoint, or name another folder with --set {key}=DIR",
                )


# --------------------------------------------------------------------------------------------- configuration, tokenizer


def _broken(path: Path, reason: str, key: str) -> HarnessError:
    return HarnessError(
        f"cannot read {path}: {reason}", fix=f"Copy or download it again, or name another folder with --set {key}=DIR"
    )


def _lacking(folder: Path, what: str, key: str) -> HarnessError:
    return HarnessError(
        f"{folder} is not a complete model folder: it lacks {what}",
        fix="Add what save_pretrained writes of a model and of its tokenizer, or name another folder with --set "
        f"{key}=DIR",
    )


def _json(path: Path, key: str) -> dict[str, Any]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _broken(path, describe_os_error(error), key) from None
    if content.startswith(_POINTER):
        raise _pointer(path, key)
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise _broken(path, "the file is empty" if not content.strip() else "not a JSON object", key)
    return value


def _pointer(path: Path, key: str) -> HarnessError:
    return _broken(path, "it is a Git LFS pointer, not the file itself (`git lfs pull` fetches it)", key)


def _check_config(folder: Path, key: str) -> None:
    config = _json(folder / "config.json", key)
    if not config.get("model_type") and not config.get("auto_map"):
        raise _broken(folder / "config.json", "it has no model_type", key)


def _check_tokenizer(folder: Path, key: str) -> None:
    """Refuse a folder with no file that a tokenizer could be read from: transformers would make an empty one."""
    names = [path.name for path in folder.iterdir() if path.is_file()]
    if any(name.startswith(_VOCABULARIES) or name.endswith(_VOCABULARY_ENDINGS) for name in names):
        if "tokenizer.json" in names:
            _json(folder / "tokenizer.json", key)
        return
    settings = _json(folder / "tokenizer_config.json", key) if "tokenizer_config.json" in names else {}
    kind = settings.get("tokenizer_class")
    if not settings.get("auto_map") and not (isinstance(kind, str) and kind.startswith(_WITHOUT_VOCABULARY)):
        raise _lacking(folder, "a tokenizer's files", key)


# -------------------------------------------------------------------------------------------------------------- weights


def _weights(folder: Path, key: str) -> tuple[Path, ...]:
    """The files that the weights are read from, as transformers chooses them."""
    for name in (_SAFE, _PICKLED):
        if (folder / name).is_file():
            return (folder / name,)
        index = folder / f"{name}.index.json"
        if not index.is_file():
            continue
        parts = _json(index, key).get("weight_map")
        if (
            not isinstance(parts, dict)
            or not parts
            or not all(isinstance(name_of_file, str) for name_of_file in parts.values())
        ):
            raise _broken(index, "it has no weight_map", key)
        paths = tuple(folder / part for part in sorted(set(parts.values())))
        if absent := [path.name for path in paths if not path.is_file()]:
            raise _lacking(folder, f"{absent[0]}, which {index.name} names", key)
        return paths
    if (folder / "adapter_config.json").is_file():  # of a network elsewhere
        return ()
    raise _lacking(folder, f"weights ({_SAFE} or {_PICKLED})", key)


def _entries(path: Path, key: str) -> dict[str, tuple[str, int, int]]:
    """The tensors of a safetensors file by name: type, and where its bytes begin and end in the file.

    The format: eight bytes with the length of a JSON header, the header, and then the bytes of all tensors without gaps
    (https://github.com/huggingface/safetensors#format). So the header says how long the file is.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            first = stream.read(len(_POINTER))
            length = int.from_bytes(first[:8], "little")
            stream.seek(8)
            header = stream.read(length) if size >= 8 and length <= min(_HEADER, size) else b""
        described: Mapping[str, Any] = json.loads(header)
        entries: dict[str, tuple[str, int, int]] = {}
        for name, entry in described.items():
            if name != "__metadata__":
                start, stop = entry["data_offsets"]
                entries[name] = (str(entry["dtype"]), 8 + length + int(start), 8 + length + int(stop))
        end = max((stop for _, _, stop in entries.values()), default=8 + length)
    except OSError as error:
        raise _broken(path, describe_os_error(error), key) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        if first == _POINTER:
            raise _pointer(path, key) from None
        raise _broken(path, f"{size:,} bytes, not a complete safetensors file", key) from None
    if size != end:
        raise _broken(
            path,
            f"it has {size:,} of {end:,} bytes" if size < end else f"{size:,} bytes, but {end:,} by its header",
            key,
        )
    return entries


def _check_pickled(path: Path, key: str) -> None:
    """Refuse a file of torch's that isn't whole; of the format before torch 1.6 that shows when it is read."""
    try:
        with path.open("rb") as stream:
            start = stream.read(len(_POINTER))
        if start == _POINTER:
            raise _pointer(path, key)
        if start.startswith(b"PK"):
            with zipfile.ZipFile(path) as archive:  # its table of contents stands at the end
                archive.infolist()
        elif start[:1] != pickle.PROTO:
            raise _broken(path, "not a torch file", key)
    except OSError as error:
        raise _broken(path, describe_os_error(error), key) from None
    except zipfile.BadZipFile:
        raise _broken(path, f"{path.stat().st_size:,} bytes, cut short or damaged", key) from None


_Tensors = Iterator[tuple[str, np.ndarray, bool]]  # name, values [n], whether they are bits of bfloat16


def _safe_tensors(path: Path, key: str) -> _Tensors:
    entries = _entries(path, key)
    content = np.memmap(path, np.uint8, mode="r") if entries else np.zeros(0, np.uint8)
    for name, (kind, start, stop) in entries.items():
        if kind in _FLOATS:
            yield name, np.frombuffer(content[start:stop], _FLOATS[kind]), kind == "BF16"


def _pickled_tensors(path: Path, key: str) -> _Tensors:
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch has many for a damaged file, some of them of the unpickler
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise _broken(path, f"torch can't read it: {reason[:100]}", key) from None
    for name, value in state.items() if isinstance(state, dict) else ():
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            yield str(name), value.detach().float().flatten().numpy(), False


def _not_finite(values: np.ndarray, bits: bool) -> str | None:
    """What is not finite among some values [n]: how many of them, NaN or infinite; None where all are finite."""
    nan = infinite = 0
    for start in range(0, len(values), _CHUNK):
        chunk = values[start : start + _CHUNK]
        if bits:  # of bfloat16, whose exponent is all ones where it isn't finite
            wrong = (chunk & 0x7F80) == 0x7F80
            nan += int((wrong & ((chunk & 0x7F) != 0)).sum())
            infinite += int((wrong & ((chunk & 0x7F) == 0)).sum())
        elif not math.isfinite(float(np.abs(chunk).max(initial=0.0))):
            nan += int(np.isnan(chunk).sum())
            infinite += int(np.isinf(chunk).sum())
    many = f"{nan + infinite:,} of {len(values):,} numbers"
    if nan and infinite:
        return f"NaN and infinity ({many})"
    return f"NaN ({many})" if nan else f"infinity ({many})" if infinite else None
