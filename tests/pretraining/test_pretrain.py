"""Pretraining: the embedded model's bits, its own texts, going on after a stop, the folders that come out."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer

from harness.common.errors import HarnessError
from harness.data.embedded import model_folder
from harness.data.embedded.language import VOCABULARY, dataset, pretraining_pairs
from harness.pretraining import objectives
from harness.pretraining.networks import build_bert, build_tokenizer, embedded_config, encode
from harness.pretraining.objectives import TokenRows
from harness.pretraining.pretrain import PretrainingStopped, PretrainResult, pretrain, schedule
from harness.pretraining.settings import PretrainError, Settings
from harness.pretraining.state import Order

MASK = VOCABULARY.index("[MASK]")
Progress = Callable[[int, int, float], None]
TINY = Settings(steps=30, batch_size=16, warmup_steps=5, pairs=300)
OWN = TINY.model_copy(update={"layers": 2, "hidden": 16, "heads": 2, "max_length": 24, "batch_size": 8})


def changed(settings: Settings, **changes: object) -> Settings:
    return settings.model_copy(update=changes)


def tiny(out: Path, *, seed: int = 0, overwrite: bool = False, progress: Progress | None = None) -> PretrainResult:
    return pretrain(out, changed(TINY, seed=seed), overwrite=overwrite, progress=progress)


def weights_of(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> PretrainResult:
    return tiny(tmp_path_factory.mktemp("pretrain") / "model")


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# the loop's parts


def test_batches_go_through_all_rows_before_any_comes_again() -> None:
    order = Order(10, 4, generator(0))
    drawn = torch.cat([order.next() for _ in range(5)]).tolist()
    assert sorted(drawn[:10]) == sorted(drawn[10:]) == list(range(10))
    assert drawn[:10] != drawn[10:]


def test_batches_may_be_larger_than_the_data() -> None:
    assert torch.bincount(Order(3, 7, generator(0)).next()).tolist() in ([3, 2, 2], [2, 3, 2], [2, 2, 3])


def test_the_rate_warms_up_and_decays_in_lines() -> None:
    assert [schedule(step, 6, 2) for step in range(6)] == [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    assert [schedule(step, 2, 0) for step in range(2)] == [1.0, 0.5]


# a run


def test_pretraining_lowers_the_loss(made: PretrainResult) -> None:
    assert made.losses.shape == (30,)
    assert np.log(84) == pytest.approx(made.losses[0], abs=0.15)
    assert made.losses[-5:].mean() < made.losses[:5].mean() - 0.2
    assert made.final_loss == made.losses.mean()  # fewer steps than the window
    assert made.wall_seconds > 0


def test_the_embedded_model_is_that_of_the_plain_loop_it_was_first_made_with(made: PretrainResult) -> None:
    init, order, masks = (generator(stream) for stream in range(3))
    tokens = encode(pretraining_pairs(300), build_tokenizer())
    network = build_bert(embedded_config(), init).eval()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, betas=(0.9, 0.98), weight_decay=0.01)
    rows = torch.cat([torch.randperm(300, generator=order) for _ in range(2)])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for step in range(30):
        batch = tokens[rows[16 * step : 16 * (step + 1)]]
        draw, fate = torch.rand(2, *batch.shape, generator=masks)
        hidden = (draw < 0.2) & (batch >= 5)
        words = torch.randint(5, 84, batch.shape, generator=masks)
        inputs = batch.masked_fill(hidden & (fate < 0.8), MASK)
        inputs = torch.where(hidden & (fate >= 0.8) & (fate < 0.8 + 0.1), words, inputs)
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * ((step + 1) / 5 if step < 5 else (30 - step) / 25)
        states = network.bert(input_ids=inputs, attention_mask=(inputs != 0).long()).last_hidden_state
        loss = F.cross_entropy(network.cls(states[hidden]), batch[hidden], reduction="sum") / hidden.sum()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        assert loss.item() == made.losses[step], step
    torch.set_num_threads(threads)
    stored = load_file(made.folder / "model.safetensors")
    values = dict(network.named_parameters())
    assert values.keys() <= stored.keys()
    assert all(torch.equal(values[name], stored[name]) for name in values)


def test_the_same_seed_gives_the_same_weights_bit_for_bit(made: PretrainResult, tmp_path: Path) -> None:
    torch.manual_seed(7)  # the global generator's state must not matter, nor change
    before, threads = torch.random.get_rng_state(), torch.get_num_threads()
    seen: list[tuple[int, int]] = []
    again = tiny(tmp_path / "again", progress=lambda step, steps, loss: seen.append((step, steps)))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    assert seen == [(step, 30) for step in range(1, 31)]
    assert np.array_equal(again.losses, made.losses)
    for file in ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (again.folder / file).read_bytes() == (made.folder / file).read_bytes(), file


def test_another_seed_gives_other_weights(made: PretrainResult, tmp_path: Path) -> None:
    other = pretrain(tmp_path / "other", changed(TINY, seed=1, steps=1, warmup_steps=0))
    assert other.losses[0] != made.losses[0]


def test_the_folder_says_how_it_was_made(made: PretrainResult) -> None:
    said = json.loads((made.folder / "pretraining.json").read_text())
    assert said["schema_version"] == 1
    assert (said["steps"], said["batch_size"], said["seed"], said["threads"]) == (30, 16, 0, 1)
    assert said["final_loss"] == made.final_loss
    assert "not trained" in said["pooler"]


def test_a_folder_in_use_is_left_alone_unless_it_may_be_replaced(tmp_path: Path) -> None:
    out = tmp_path / "model"
    out.mkdir()
    (out / "precious").write_text("mine")
    with pytest.raises(PretrainError, match=r"cannot write the model to .*: the folder is not empty"):
        tiny(out)
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "precious"]
    pretrain(out, changed(OWN, steps=1, warmup_steps=0), overwrite=True)
    assert not (out / "precious").exists()
    assert (out / "model.safetensors").is_file()
    assert list(tmp_path.iterdir()) == [out]  # nothing temporary is left


def test_a_run_that_is_stopped_leaves_nothing(tmp_path: Path) -> None:
    def stop(step: int, steps: int, loss: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tiny(tmp_path / "model", progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_folders_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("a file")
    with pytest.raises(PretrainError, match="it is a file, not a folder"):
        tiny(tmp_path / "model", overwrite=True)


# texts of one's own


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred documents of four sentences of the embedded language."""
    path = tmp_path_factory.mktemp("texts") / "texts.txt"
    pairs = pretraining_pairs(200, seed=8)
    lines = [sentence for pair in pairs for sentence in (pair.premise, pair.hypothesis)]
    path.write_text("\n\n".join("\n".join(lines[n : n + 4]) for n in range(0, 400, 4)) + "\n")
    return path


OBJECTIVES = {
    "masked": {},
    "whole words": {"whole_words": True, "train_tokenizer": "WordPiece", "vocab_size": 150},
    "next sentence": {"next_sentence": True, "held_out": 0.2},
    "causal": {"objective": "causal", "train_tokenizer": "BPE", "vocab_size": 320, "dropout": False},
}


@pytest.fixture(scope="module", params=OBJECTIVES)
def own(
    request: pytest.FixtureRequest, texts: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Settings, PretrainResult]:
    settings = changed(OWN, texts=(texts,), lr=3e-3, **OBJECTIVES[request.param])
    return settings, pretrain(tmp_path_factory.mktemp("own") / "model", settings)


def test_texts_of_ones_own_are_learned_and_held_out_ones_predicted_better(
    own: tuple[Settings, PretrainResult],
) -> None:
    _, made = own
    assert [step for step, _ in made.held_out] == [0, 10, 20, 30]
    assert made.losses[-5:].mean() < made.losses[:5].mean() - 0.1
    (_, before), (_, after) = made.held_out[0], made.held_out[-1]
    assert after.loss < before.loss - 0.1
    assert (after.next_accuracy is not None) == own[0].next_sentence


def test_the_folder_loads_as_an_encoder_and_as_a_classifier(own: tuple[Settings, PretrainResult]) -> None:
    folder = own[1].folder
    network, info = AutoModel.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("all dog runs", return_tensors="pt")
    assert network(**ids).last_hidden_state.shape[-1] == 16
    classifier, info = AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=2, output_loading_info=True
    )
    assert {name.partition(".")[0] for name in info["missing_keys"]} <= {"classifier", "score"}
    assert classifier.config.num_labels == 2


def test_the_same_settings_give_the_same_bits(own: tuple[Settings, PretrainResult], tmp_path: Path) -> None:
    settings, made = own
    before = torch.random.get_rng_state()
    again = pretrain(tmp_path / "again", settings)
    assert torch.equal(torch.random.get_rng_state(), before)  # dropout draws on it inside
    assert np.array_equal(again.losses, made.losses)
    for file in ("model.safetensors", "config.json", "tokenizer.json"):
        assert (again.folder / file).read_bytes() == (made.folder / file).read_bytes(), file


def test_the_held_out_loss_is_that_of_the_folder(own: tuple[Settings, PretrainResult]) -> None:
    settings, made = own
    said = json.loads((made.folder / "pretraining.json").read_text())
    assert said["scores"][-1]["loss"] == made.held_out[-1][1].loss
    assert said["objective"] == settings.objective
    page = (made.folder / "pretrain.md").read_text()
    assert f"loss **{made.held_out[-1][1].loss:.3f}**" in page
    assert (made.folder / "pretrain.png").read_bytes().startswith(b"\x89PNG")


def test_going_on_from_a_model_begins_where_it_was(own: tuple[Settings, PretrainResult], tmp_path: Path) -> None:
    settings, made = own
    kept = {name: getattr(settings, name) for name in ("objective", "whole_words", "next_sentence", "held_out")}
    further = changed(TINY, texts=settings.texts, start=str(made.folder), batch_size=8, lr=1e-4, **kept)
    more = pretrain(tmp_path / "more", further)
    assert more.held_out[0][1].loss == pytest.approx(made.held_out[-1][1].loss, rel=1e-5)
    assert more.held_out[-1][1].total < more.held_out[0][1].total
    assert weights_of(more.folder) != weights_of(made.folder)
    assert (more.folder / "tokenizer.json").read_bytes() == (made.folder / "tokenizer.json").read_bytes()
    assert load_file(more.folder / "model.safetensors").keys() == load_file(made.folder / "model.safetensors").keys()


def test_dropout_is_on_but_for_the_embedded_model(tmp_path: Path) -> None:
    one, other = (pretrain(tmp_path / str(on), changed(OWN, dropout=on, steps=6)) for on in (None, False))
    assert not np.array_equal(one.losses, other.losses)
    assert one.held_out[0] == other.held_out[0]  # is without dropout either way


# going on after a stop


@pytest.mark.parametrize("name", ["embedded", "whole words", "next sentence", "causal"])
def test_a_run_stopped_by_ctrl_c_goes_on_to_the_same_bits(name: str, texts: Path, tmp_path: Path) -> None:
    settings = TINY if name == "embedded" else changed(OWN, texts=(texts,), **OBJECTIVES[name])
    settings = changed(settings, steps=14)
    whole = pretrain(tmp_path / "whole", settings)
    seen: list[int] = []

    def interrupt(step: int, steps: int, loss: float) -> None:
        seen.append(step)
        if step in (4, 11):
            os.kill(os.getpid(), signal.SIGINT)

    out = tmp_path / "out"
    for at in (4, 11):
        with pytest.raises(PretrainingStopped) as stopped:
            pretrain(out, settings, progress=interrupt)
        assert (stopped.value.step, stopped.value.terminated) == (at, False)
        assert sorted(path.name for path in (tmp_path / "out.unfinished").iterdir()) == [".lock", "state.safetensors"]
        assert not out.exists()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    resumed = pretrain(out, settings, progress=interrupt)
    assert seen == list(range(1, 15))  # no step was made twice
    assert np.array_equal(resumed.losses, whole.losses)
    assert resumed.held_out == whole.held_out
    assert weights_of(out) == weights_of(whole.folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]


def test_a_run_that_was_killed_goes_on_from_what_was_kept(tmp_path: Path) -> None:
    settings = changed(OWN, steps=40)
    whole = pretrain(tmp_path / "whole", settings)
    code = (
        "import sys\nfrom pathlib import Path\nfrom harness.pretraining.pretrain import pretrain\n"
        "from harness.pretraining.settings import Settings\n"
        "say = lambda step, steps, loss: print(step, flush=True)\n"
        "pretrain(Path(sys.argv[1]), Settings.model_validate_json(sys.argv[2]), minutes=0, progress=say)\n"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "out"), settings.model_dump_json()]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert next(line for line in process.stdout if line == "7\n")
        process.kill()
    assert not (tmp_path / "out").exists()
    seen: list[int] = []
    resumed = pretrain(tmp_path / "out", settings, progress=lambda step, steps, loss: seen.append(step))
    assert 7 <= seen[0] <= 40  # what it had printed was kept, but for the last
    assert np.array_equal(resumed.losses, whole.losses)
    assert weights_of(tmp_path / "out") == weights_of(whole.folder)


def test_a_state_that_was_changed_is_not_gone_on_from(tmp_path: Path) -> None:
    whole = pretrain(tmp_path / "whole", changed(OWN, steps=6))
    state = tmp_path / "out.unfinished" / "state.safetensors"
    for damage in (lambda content: content[: len(content) // 2], lambda content: content[:-3] + b"abc"):
        with pytest.raises(PretrainingStopped):
            pretrain(tmp_path / "out", changed(OWN, steps=6), progress=stop_at(3))
        state.write_bytes(damage(state.read_bytes()))
        made = pretrain(tmp_path / "out", changed(OWN, steps=6), progress=stop_at(0))
        assert np.array_equal(made.losses, whole.losses)
        for path in (tmp_path / "out").iterdir():
            path.unlink()


def stop_at(at: int) -> Progress:
    def progress(step: int, steps: int, loss: float) -> None:
        if step == at:
            os.kill(os.getpid(), signal.SIGTERM)

    return progress


def test_going_on_with_other_settings_is_refused_and_the_differing_one_named(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("all dog runs\nno bird naps\nsome rose naps slowly\n" * 9)
    settings, out = changed(OWN, texts=(path,), held_out=0.0, steps=6), tmp_path / "out"
    with pytest.raises(PretrainingStopped) as stopped:
        pretrain(out, settings, progress=stop_at(2))
    assert stopped.value.terminated
    with pytest.raises(
        PretrainError, match=r"cannot resume with --lr 0\.5: the first 2 steps were trained with --lr 0\.001"
    ):
        pretrain(out, changed(settings, lr=0.5))
    with pytest.raises(PretrainError, match=r"--whole-word True: .* with --whole-word False"):
        pretrain(out, changed(settings, whole_words=True))
    with pytest.raises(PretrainError, match=r"--heads 4: .* with --heads 2"):
        pretrain(out, changed(settings, heads=4))
    with pytest.raises(PretrainError, match=r"no --heads: .* with --heads 2"):
        pretrain(out, changed(settings, heads=None))
    content = path.read_text()
    path.write_text(content + "all dog naps\n")
    with pytest.raises(PretrainError, match=rf"text {path} .{{12}}…: .* with text {path} .*out\.unfinished to begin"):
        pretrain(out, settings)
    path.write_text(content)
    seen: list[int] = []
    pretrain(out, settings, progress=lambda step, steps, loss: seen.append(step))
    assert seen == [3, 4, 5, 6]


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    def meddle(step: int, steps: int, loss: float) -> None:
        if step == 3:
            with pytest.raises(PretrainError, match=rf"is in use: process {os.getpid()} on .* writes"):
                pretrain(tmp_path / "model", changed(OWN, steps=6))

    assert len(pretrain(tmp_path / "model", changed(OWN, steps=6), progress=meddle).losses) == 6
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_full_disk_ends_a_run_only_where_it_was_told_to_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: object) -> None:
        raise OSError(28, "No space left on device", "state")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    made = pretrain(tmp_path / "one", changed(OWN, steps=7), minutes=0)
    assert len(made.losses) == 7
    with pytest.raises(OSError, match="No space"):
        pretrain(tmp_path / "two", changed(OWN, steps=7), progress=stop_at(2))


# what can't be


@pytest.mark.parametrize(
    ("changes", "content", "message"),
    [
        ({}, "ein Satz ohne bekannte Woerter\n", r"100% of the tokens are unknown"),
        (
            {"max_length": 3},
            "all dog runs\n",
            r"--max-length must be >= 4, .*\(got 3\)",
        ),
        ({"next_sentence": True, "held_out": 0.0}, "all dog runs\nno dog naps\n", r"got 2 sentences in 1 document\)"),
        ({"start": "embedded", "max_length": 64}, "all dog runs\n", r"--max-length must be at most 32, "),
    ],
)
def test_texts_that_do_not_fit_are_refused(
    tmp_path: Path, changes: dict[str, object], content: str, message: str
) -> None:
    path = tmp_path / "texts.txt"
    path.write_text(content)
    settings = changed(OWN, texts=(path,), **changes)
    if "start" in changes:
        settings = changed(settings, layers=None, hidden=None, heads=None)
    with pytest.raises(HarnessError, match=message):
        pretrain(tmp_path / "model", settings)
    assert [path.name for path in tmp_path.iterdir()] == ["texts.txt"]


def test_a_tokenizer_larger_than_its_model_is_refused(tmp_path: Path, made: PretrainResult) -> None:
    tokenizer = AutoTokenizer.from_pretrained(made.folder)
    tokenizer.add_tokens(["zebra"])
    folder = tmp_path / "start"
    AutoModelForMaskedLM.from_pretrained(made.folder).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    with pytest.raises(PretrainError, match="its tokenizer has 85 tokens, its model 84 embeddings"):
        pretrain(tmp_path / "model", changed(TINY, start=str(folder)))


# folders, the one made here and the one that is shipped


@pytest.fixture(params=["made", "shipped"])
def folder(request: pytest.FixtureRequest, made: PretrainResult) -> Path:
    return made.folder if request.param == "made" else model_folder()


def test_a_folder_has_at_most_4_mb(folder: Path) -> None:
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= set(sizes)
    assert sum(sizes.values()) <= 4_000_000


def test_a_folder_loads_as_a_classifier_and_misses_the_head_alone(folder: Path) -> None:
    network, info = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2, output_loading_info=True)
    assert set(info["missing_keys"]) == {"classifier.weight", "classifier.bias"}
    assert all(key.startswith("cls.predictions.") for key in info["unexpected_keys"])
    assert not info["mismatched_keys"]
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    stored = load_file(folder / "model.safetensors")
    assert torch.equal(network.bert.pooler.dense.weight, stored["bert.pooler.dense.weight"])
    assert network.config.hidden_dropout_prob == network.config.attention_probs_dropout_prob == 0.1


def test_a_folders_tokenizer_knows_every_word_and_gives_pairs_back(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.convert_tokens_to_ids(list(VOCABULARY)) == list(range(84))
    assert (tokenizer.pad_token, tokenizer.mask_token, tokenizer.unk_token) == ("[PAD]", "[MASK]", "[UNK]")
    for pair in dataset("validation"):
        encoded = tokenizer(pair.premise, pair.hypothesis)
        assert tokenizer.decode(encoded["input_ids"]) == f"[CLS] {pair.premise} [SEP] {pair.hypothesis} [SEP]"
        second = encoded["input_ids"].index(tokenizer.sep_token_id) + 1
        assert encoded["token_type_ids"] == [0] * second + [1] * (len(encoded["input_ids"]) - second)
    assert tokenizer("all dog barks")["input_ids"][3] == VOCABULARY.index("[UNK]")


def test_the_shipped_model_has_learned_the_language() -> None:
    tokenizer = AutoTokenizer.from_pretrained(model_folder())
    network = AutoModelForMaskedLM.from_pretrained(model_folder()).eval()
    tokens = encode([pair for pair in dataset("validation") if pair.entailed], tokenizer)
    rows = TokenRows(tokens, tokens != 0, tokens >= 5)
    inputs, labels = objectives.mask_tokens(rows, generator(0), share=0.2, mask=MASK, words=torch.arange(5, 84))
    with torch.no_grad():
        logits = network(input_ids=inputs, attention_mask=(inputs != 0).long()).logits
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()).item()
    said = json.loads((model_folder() / "pretraining.json").read_text())
    assert said["final_loss"] < 0.8
    assert loss == pytest.approx(said["final_loss"], abs=0.25)  # texts that it has not seen; some 400 hidden tokens
