"""A loop without the engine reproduces a committed record: transformers' own model, one lane, no vmap, no playback.

What it shares with the harness is the data, the shipped checkpoint, and the streams that everything is drawn from, as
they are documented: `sha256("<purpose>:<seed>")` seeds a generator for the head, the order and dropout.
"""

import csv
import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.common import hub
from harness.config.recipe import ModelSpec, TaskSpec
from harness.data import tasks

ROOT = Path(__file__).parents[2]
RECORD = "lr2e-4-bc-ep3-seed1-d360c968"
LR, EPOCHS, BATCH, WARM_UP, DECAY, DROPOUT = 2e-4, 3, 16, 0.1, 0.01, 0.1
BETAS, EPS, CLIP = (0.9, 0.999), 1e-6, 1.0


def committed(trial: str) -> dict[str, str]:
    with (ROOT / "results/examples/rte_lr@embedded/report/tables/runs.csv").open(newline="") as stream:
        return next(row for row in csv.DictReader(stream) if row["trial"] == trial)


def stream(purpose: str, seed: int) -> torch.Generator:
    key = hashlib.sha256(f"{purpose}:{seed}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(key[:8], "big") >> 1)


class Dropout:
    """Stands for `F.dropout`: 16 bits decide for each number, drawn at once for all places of a forward pass."""

    def __init__(self, seed: int) -> None:
        self.generator, self.cut = stream("dropout", seed), round(DROPOUT * 65536)
        self.kept: Tensor | None = None
        self.used = 0

    def __call__(self, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        start, self.used = self.used, self.used + x.numel()
        if self.kept is None:  # counting
            return x
        return x * self.kept[start : self.used].view(x.shape) * (65536 / (65536 - self.cut))

    def draw(self, count: int) -> None:
        bits = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None, generator=self.generator)
        self.kept, self.used = (bits.view(torch.int16)[:count] >= self.cut - 32768).float(), 0


@contextmanager
def instead_of_dropout(dropout: Dropout, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patched:
        patched.setattr(F, "dropout", dropout)
        yield


class Loop:
    """Fine-tuning as in the paper, a step at a time."""

    def __init__(self, seed: int, monkeypatch: pytest.MonkeyPatch, *, correct: bool = True, lr: float = LR) -> None:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        self.monkeypatch, self.correct, self.lr = monkeypatch, correct, lr
        place = hub.location(ModelSpec(name="embedded"))
        with torch.random.fork_rng(devices=[]):  # transformers draws a head, which is not used
            self.model = AutoModelForSequenceClassification.from_pretrained(
                place, num_labels=2, attn_implementation="eager"
            )
        with torch.no_grad():
            self.model.classifier.weight.normal_(0.0, 0.02, generator=stream("init", seed))
            self.model.classifier.bias.zero_()
        raw = tasks.load(TaskSpec(name="embedded"))
        tokenizer = AutoTokenizer.from_pretrained(place)
        texts = [(list(rows.texts), list(rows.pairs or ())) for rows in (raw.train, raw.validation)]
        ids = tokenizer([one for a, _ in texts for one in a], [one for _, b in texts for one in b], max_length=16,
                        truncation="longest_first", padding="longest", return_tensors="pt")  # fmt: skip
        cut = len(raw.train.texts)
        self.inputs = {name: ids[name][:cut] for name in ("input_ids", "attention_mask")}
        self.dev = {name: ids[name][cut:] for name in ("input_ids", "attention_mask")}
        self.labels, self.dev_labels = (torch.from_numpy(one.labels) for one in (raw.train, raw.validation))
        self.epoch = math.ceil(cut / BATCH)
        self.steps = EPOCHS * self.epoch
        self.dropout, self.order = Dropout(seed), stream("order", seed)
        self.draws: dict[int, int] = {}
        self.moments = [(torch.zeros_like(w), torch.zeros_like(w)) for w in self.model.parameters()]
        self.done = 0

    def step(self) -> float:
        """One update; the loss of its batch before."""
        if self.done % self.epoch == 0:
            self.permuted = torch.randperm(len(self.labels), generator=self.order)
        start = self.done % self.epoch * BATCH
        rows = self.permuted[start : start + BATCH]
        batch = {name: value[rows] for name, value in self.inputs.items()}
        self.model.train()
        with instead_of_dropout(self.dropout, self.monkeypatch):
            if len(rows) not in self.draws:
                self.dropout.kept, self.dropout.used = None, 0
                with torch.no_grad():
                    self.model(**batch)
                self.draws[len(rows)] = self.dropout.used
            self.dropout.draw(self.draws[len(rows)])
            loss = F.cross_entropy(self.model(**batch).logits, self.labels[rows])
        self.model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        self.done += 1
        self.update()
        return loss.item()

    @torch.no_grad()
    def update(self) -> None:
        """AdamW as in `transformers` until 4.x, which the paper used."""
        warm = int(WARM_UP * self.steps)
        at = self.done - 1
        rate = self.lr * (at / warm if at < warm else (self.steps - at) / (self.steps - warm))
        size = rate
        if self.correct:
            size *= math.sqrt(1 - BETAS[1] ** self.done) / (1 - BETAS[0] ** self.done)
        for (name, w), (m, v) in zip(self.model.named_parameters(), self.moments, strict=True):
            m.mul_(BETAS[0]).add_(w.grad, alpha=1 - BETAS[0])
            v.mul_(BETAS[1]).addcmul_(w.grad, w.grad, value=1 - BETAS[1])
            w.addcdiv_(m, v.sqrt().add_(EPS), value=-size)
            if not name.endswith(("bias", "LayerNorm.weight")):
                w.add_(w, alpha=-rate * DECAY)

    @torch.no_grad()
    def evaluate(self) -> tuple[float, float]:
        """Loss and accuracy on the dev set."""
        self.model.eval()
        logits = self.model(**self.dev).logits
        return F.cross_entropy(logits, self.dev_labels).item(), (
            logits.argmax(1) == self.dev_labels
        ).double().mean().item()


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_a_plain_loop_ends_where_the_committed_record_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """All three epochs, losses to rounding. Bits can't agree: a lane's products are batched, and these are not."""
    loop, record = Loop(1, monkeypatch), committed(RECORD)
    losses = [loop.step() for _ in range(loop.steps)]
    dev_loss, accuracy = loop.evaluate()
    assert loop.steps == int(record["steps"])
    last = losses[-loop.epoch :]
    assert sum(last) / len(last) == pytest.approx(float(record["final_train_loss"]), abs=1e-4)
    assert dev_loss == pytest.approx(float(record["final_dev_loss"]), abs=1e-4)
    assert accuracy == pytest.approx(float(record["final_score"]), abs=1 / 400)
