"""Cut a model's folder to the words that some texts use and store it in half precision, so that it travels light.

`python -m benchmarks.gpu_proof.weights FOLDER OUT --texts FILE… [--parts MIB]`. A WordPiece tokenizer takes the longest
piece that fits, so pieces that no text uses can go without a change to the others; that the tokens are the same for
every text is checked all the same, and so is it that they mean the same vectors. `join` puts parts together again.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

_SMALL = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
_WORDS = "embeddings.word_embeddings.weight"
_PART = "part-"
_SPECIAL_IDS = ("pad_token_id", "bos_token_id", "eos_token_id", "sep_token_id", "cls_token_id", "unk_token_id")


def texts_of(files: Iterable[Path]) -> list[tuple[str, str | None]]:
    """The texts of files in GLUE's form, each with its pair where there is one."""
    found = []
    for path in files:
        with path.open(newline="") as stream:
            for row in csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE):
                text = row.get("sentence1") or row.get("sentence") or row.get("text")
                if text is None:
                    raise ValueError(f"{path} has none of the columns sentence1, sentence and text")
                found.append((text, row.get("sentence2") or row.get("text_pair")))
    return found


def cut(folder: Path, out: Path, texts: Sequence[tuple[str, str | None]], *, half: bool = True) -> int:
    """Write the folder cut to these texts; gives the number of tokens that are left.

    Raises ValueError where the cut tokenizer reads a text in another way.
    """
    from safetensors import safe_open
    from safetensors.torch import save_file
    from transformers import AutoTokenizer

    whole = AutoTokenizer.from_pretrained(folder)
    before = _encoded(whole, texts)
    described = json.loads((folder / "tokenizer.json").read_text())
    special = {int(token["id"]) for token in described["added_tokens"]}
    used = sorted(special | {number for ids in before for number in ids})
    renumbered = {old: new for new, old in enumerate(used)}
    out.mkdir(parents=True, exist_ok=True)
    _write_tokenizer(folder, out, described, renumbered)
    after = _encoded(AutoTokenizer.from_pretrained(out), texts)
    if [[renumbered[number] for number in ids] for ids in before] != after:
        raise ValueError(f"the cut tokenizer reads some of the texts in another way than that of {folder}")
    weights = {}
    with safe_open(folder / "model.safetensors", "pt") as stream:
        for name in stream.keys():  # noqa: SIM118 - no dict
            value = stream.get_tensor(name)
            if name.endswith(_WORDS):
                value = value[used]
            weights[name] = value.half() if half and value.is_floating_point() else value
    save_file(
        {name: value.contiguous() for name, value in weights.items()}, out / "model.safetensors", {"format": "pt"}
    )
    return len(used)


def _encoded(tokenizer: Any, texts: Sequence[tuple[str, str | None]]) -> list[list[int]]:
    """All tokens of the texts, none cut off."""
    found: list[list[int]] = []
    for paired in (False, True):
        chosen = [one for one in texts if (one[1] is not None) == paired]
        if chosen:
            pairs = [pair for _, pair in chosen if pair is not None] if paired else None
            given = tokenizer([text for text, _ in chosen], pairs, truncation=False, padding=False)
            found += given["input_ids"]
    return found


def _write_tokenizer(folder: Path, out: Path, described: dict[str, Any], renumbered: dict[int, int]) -> None:
    model = described["model"]
    if model["type"] not in ("WordPiece", "WordLevel"):
        raise ValueError(f"a tokenizer of whole pieces is cut, not one of the type {model['type']}")
    words = {word: renumbered[old] for word, old in model["vocab"].items() if old in renumbered}
    model["vocab"] = dict(sorted(words.items(), key=lambda entry: entry[1]))
    for token in described["added_tokens"]:
        token["id"] = renumbered[token["id"]]
    for token in ((described.get("post_processor") or {}).get("special_tokens") or {}).values():
        token["ids"] = [renumbered[old] for old in token["ids"]]
    processor = described.get("post_processor") or {}
    for name in ("cls", "sep"):  # those of RobertaProcessing and BertProcessing: [token, id]
        if isinstance(processor.get(name), list):
            processor[name][1] = renumbered[processor[name][1]]
    described["truncation"] = described["padding"] = None
    for name in _SMALL:
        if (folder / name).exists():
            shutil.copy(folder / name, out / name)
    (out / "tokenizer.json").write_text(json.dumps(described, ensure_ascii=False))
    settings = json.loads((out / "tokenizer_config.json").read_text())
    settings.pop("added_tokens_decoder", None)  # by old ids; tokenizer.json has them
    (out / "tokenizer_config.json").write_text(json.dumps(settings))
    if (folder / "vocab.txt").exists():
        (out / "vocab.txt").write_text("".join(f"{word}\n" for word in model["vocab"]))
    config = json.loads((out / "config.json").read_text())
    config["vocab_size"] = len(renumbered)
    for name in _SPECIAL_IDS:
        if config.get(name) in renumbered:
            config[name] = renumbered[config[name]]
        else:
            config.pop(name, None)
    (out / "config.json").write_text(json.dumps(config, indent=1))


def split(folder: Path, out: Path, most: int) -> list[Path]:
    """The weights of a folder as files of at most so many bytes, the small files beside the first of them."""
    out.mkdir(parents=True, exist_ok=True)
    written = []
    with (folder / "model.safetensors").open("rb") as stream:
        while content := stream.read(most):
            path = out / f"{_PART}{len(written):02d}"
            path.write_bytes(content)
            written.append(path)
    (out / f"{_PART}count").write_text(str(len(written)))
    for path in folder.iterdir():
        if path.name != "model.safetensors":
            shutil.copy(path, out / path.name)
    return written


def join(parts: Path, out: Path) -> Path:
    """A model's folder from its parts; raises ValueError where one is missing."""
    count = int((parts / f"{_PART}count").read_text())
    missing = [number for number in range(count) if not (parts / f"{_PART}{number:02d}").is_file()]
    if missing:
        raise ValueError(f"{parts} lacks {', '.join(f'{_PART}{number:02d}' for number in missing)} of {count}")
    out.mkdir(parents=True, exist_ok=True)
    with (out / "model.safetensors").open("wb") as stream:
        for number in range(count):
            stream.write((parts / f"{_PART}{number:02d}").read_bytes())
    for path in parts.iterdir():
        if path.is_file() and not path.name.startswith(_PART):
            shutil.copy(path, out / path.name)
    return out


def found(folder: Path | None, home: Path) -> Path | None:
    """The model's folder of that name, joined from parts where it lies there in parts; None where there is none.

    Raises ValueError for parts that are not complete.
    """
    if folder is None or not folder.is_dir():
        return None
    if (folder / f"{_PART}count").exists():
        joined = home / folder.name
        return joined if joined.exists() else join(folder, joined)
    return folder if (folder / "config.json").exists() else None


def main() -> None:
    """Cut a folder as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--texts", type=Path, nargs="+", required=True, help="files in GLUE's form")
    parser.add_argument("--parts", type=int, metavar="MIB", help="in files of at most so many MiB")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        whole = Path(home) / "cut" if given.parts else given.out
        left = cut(given.folder, whole, texts_of(given.texts))
        if given.parts:
            split(whole, given.out, given.parts * 2**20)
    size = sum(path.stat().st_size for path in given.out.rglob("*") if path.is_file())
    print(f"{given.out}: {left} tokens, {size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
