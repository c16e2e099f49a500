"""The kit that gives every figure of a GPU, run whole in its tiny shape on a CPU without ray, optuna and datasets."""

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks.gpu_proof import __main__ as command
from benchmarks.gpu_proof import kit, part, summary, weights

# What a machine may lack is not found, as where it is not installed.
BLOCKER = """
from importlib.machinery import PathFinder

found = PathFinder.find_spec

def find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] in ("ray", "optuna", "datasets") else found(name, path, target)

PathFinder.find_spec = staticmethod(find_spec)
"""
# One thread; and what would be compiled for a minute is run as it is.
LIGHT = {"OMP_NUM_THREADS": "1", "TORCHDYNAMO_DISABLE": "1"}


def write_glue(folder: Path, columns: list[str], rows: int) -> Path:
    folder.mkdir(parents=True)
    for split, count in (("train", rows), ("dev", rows // 2)):
        lines = ["\t".join(columns)]
        for number in range(count):
            texts = [f"{'good' if number % 2 else 'bad'} {'abcdefgh'[number % 8]}"] * (len(columns) - 1)
            last = ("not_entailment", "entailment")[number % 2] if len(columns) > 2 else str(number % 2)
            lines.append("\t".join([*texts, last]))
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, build: Callable[..., Path]) -> tuple[Path, str]:
    """What a whole run left and said; of the studies' weights those of one are there."""
    home = tmp_path_factory.mktemp("proof")
    write_glue(home / "data" / "sst2_small", ["sentence", "label"], 40)
    write_glue(home / "data" / "rte", ["sentence1", "sentence2", "label"], 40)
    (home / "absent").mkdir()
    (home / "absent" / "sitecustomize.py").write_text(BLOCKER)
    words = ["--device", "cpu", "--shape", "tiny", "--budget", "1200", "--out", home / "out", "--home", home / "home"]
    words += ["--data", home / "data", "--mpnet", build("mpnet", pad_token_id=0)]
    paths = os.pathsep.join([str(home / "absent"), str(kit.ROOT)])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "benchmarks.gpu_proof", *map(str, words)],
        cwd=kit.ROOT, env={**os.environ, "PYTHONPATH": paths, **LIGHT}, capture_output=True, text=True,
        check=False, timeout=1200,
    )  # fmt: skip
    log = home / "out" / "logs.txt"
    assert done.returncode == 0, done.stdout + done.stderr + (log.read_text() if log.exists() else "")
    return home / "out", done.stdout


def test_every_part_ends_and_is_kept(ran: tuple[Path, str]) -> None:
    out, said = ran
    found = json.loads((out / "summary.json").read_text())
    assert found["parts"] == dict.fromkeys(part.PARTS, "done"), (out / "logs.txt").read_text()
    tables = {table["name"]: table for table in json.loads((out / "parts.json").read_text())["tables"]}
    assert list(tables) == list(part.PARTS)
    for name, table in tables.items():
        assert not [note for note in table["notes"] if "broke" in note], name
        lacking = [row["what"] for row in table["rows"] if not row["values"] and "memory" not in row["what"]]
        assert lacking == (["sst2_minilm@gpu: finished trials"] if name == "sst2_minilm" else []), name
    (row,) = tables["sst2_minilm"]["rows"]
    assert row["note"] == "no weights"
    assert len(said) < 10_000
    assert len([path for path in out.rglob("*") if path.is_file()]) <= 8


def test_the_bars_are_those_that_are_asked_for(ran: tuple[Path, str]) -> None:
    found = json.loads((ran[0] / "summary.json").read_text())
    bars = {row["what"]: row["bar"] for row in found["bars"]}
    over = "4 texts × 16 tokens: best pack over one Trainer process"
    assert bars[f"base, bf16, {over}"] == "≥ 8"
    assert bars[f"large, bf16, {over}"] == "≥ 4"
    assert bars["base, bf16, 4 texts × 16 tokens: share of the products' rate, best pack"] == "≥ 0.5"
    assert bars["base, bf16, 4 texts × 16 tokens: memory of a lane over what is reckoned"] == "0.75 to 1.25"
    laws = [row for row in found["bars"] if row["what"].startswith("bf16: ")]
    assert len(laws) == 3
    assert {row["verdict"] for row in laws} == {"held"}


def test_a_study_s_records_come_back_and_are_read(ran: tuple[Path, str], tmp_path: Path) -> None:
    with tarfile.open(ran[0] / "studies.tar.gz") as stream:
        stream.extractall(tmp_path, filter="data")
    from harness.records.store import Store

    store = Store(tmp_path / "rte_mpnet@gpu")
    sweep = store.load_plan()
    assert sweep is not None
    assert (sweep.name, sweep.profile, len(sweep.seeds)) == ("rte_mpnet", "gpu", 2)
    assert [record.status for record in store.records(sweep).values()] == ["finished"] * 4
    assert (tmp_path / "rte_mpnet_rates@gpu" / "plan.json").exists()


def test_shares_of_the_budget() -> None:
    names = list(part.PARTS)
    assert command.limits(names, 710, 710) == pytest.approx(60)
    assert command.limits(names[1:], 690, 710) > 40  # what the first did not use
    assert command.limits(["base", "rte_mpnet"], 140, 710) == pytest.approx(140 - 0.8 * 150)  # a reserve is kept
    assert command.limits(["base", "rte_mpnet"], 10, 710) == 0
    assert command.limits(["rte_mpnet"], 33, 710) == 33


@pytest.mark.parametrize("word", ["laws=x", "laws=", "laws", "laws=-5", "laws=0", "laws=nan", "laws=inf"])
def test_a_share_that_is_no_number_of_seconds_is_refused(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.options(["--out", "x", "--share", word])
    assert f"{word!r} gives laws no number of seconds, as laws=40 does" in capsys.readouterr().err
    assert command.options(["--out", "x", "--share", "laws=4.5"]).share == [("laws", 4.5)]


def test_a_part_that_hangs_is_killed_and_its_rows_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    assert command.follow(command.Running("laws", started.pid), 0.2) == "killed at its time"
    started.returncode = -9  # reaped there
    journal = kit.Journal("laws", "Laws", tmp_path / "laws.json")
    journal.add("a law", "", [0.0], least=1)
    found = summary.write(tmp_path, tmp_path, {"laws": "killed at its time", "base": "no time was left"}, "cpu")
    assert [(row.what, row.verdict) for row in found.barred] == [("a law", "missed")]
    assert "no time was left" in (tmp_path / "summary.md").read_text()
    assert "  a law: 0 [≥ 1: missed]" in summary.compact(found)


def test_a_part_that_breaks_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("first\nCUDA error: an illegal memory access")

    from benchmarks.gpu_proof import laws

    monkeypatch.setattr(laws, "laws", broken)
    words = ["laws", "--seconds", "5", "--out", str(tmp_path / "laws.json"), "--device", "cpu", "--shape", "tiny"]
    assert part.main(words) == 1
    assert "RuntimeError: CUDA error: an illegal memory access" in (tmp_path / "laws.json").read_text()


TEXTS = [("good a", "bad b"), ("red good", "a"), ("a unknown", "b")]


@pytest.mark.parametrize("kind", ["bert", "mpnet"])
def test_cut_weights_read_and_answer_the_same(build: Callable[..., Path], tmp_path: Path, kind: str) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = build(kind)
    left = weights.cut(folder, tmp_path / "cut", TEXTS, half=False)
    assert left == len({"[PAD]", "[UNK]", "[CLS]", "[SEP]"}) + len({"good", "a", "bad", "b", "red"})
    weights.split(tmp_path / "cut", tmp_path / "parts", 1000)
    joined = weights.found(tmp_path / "parts", tmp_path / "home")
    assert joined is not None
    answers = []
    for place in (folder, joined):
        torch.manual_seed(0)  # the head is drawn
        model = AutoModelForSequenceClassification.from_pretrained(place, num_labels=2).eval()
        first, second = zip(*TEXTS, strict=True)
        given = AutoTokenizer.from_pretrained(place)(list(first), list(second), padding=True, return_tensors="pt")
        with torch.no_grad():
            answers.append(model(**given).logits)
    assert torch.equal(*answers)


def test_halves_are_rounded_and_loaded_as_they_are(build: Callable[..., Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file

    folder = build("bert")
    weights.cut(folder, tmp_path / "cut", TEXTS)
    whole, half = load_file(folder / "model.safetensors"), load_file(tmp_path / "cut" / "model.safetensors")
    name = "encoder.layer.0.output.dense.weight"
    assert half[name].dtype == torch.float16
    assert torch.equal(half[name], whole[name].half())


def test_weights_that_are_not_all_there(build: Callable[..., Path], tmp_path: Path) -> None:
    assert weights.found(None, tmp_path) is None
    assert weights.found(tmp_path / "nowhere", tmp_path) is None
    written = weights.split(build("bert"), tmp_path / "parts", 5000)
    written[1].unlink()
    with pytest.raises(ValueError, match=f"lacks part-01 of {len(written)}"):
        weights.found(tmp_path / "parts", tmp_path / "home")


def test_a_text_that_would_be_read_in_another_way_is_refused(build: Callable[..., Path], tmp_path: Path) -> None:
    folder = build("bert")
    described = json.loads((folder / "tokenizer.json").read_text())
    # `reddx` gives [UNK], since its longest piece `redd` leads nowhere; without that piece it would be read.
    described["model"] = {
        "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
        "vocab": {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4, "red": 5, "redd": 6, "##dx": 7, "a": 8},
    }  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(described))
    with pytest.raises(ValueError, match="in another way"):
        weights.cut(folder, tmp_path / "cut", [("reddx", None), ("red", None), ("adx", None)])
