"""A contender: a plain loop over seeds in one process, as one writes it in torch. Knows nothing of the harness.

`python -m benchmarks.speed.loop --work DIR --seeds 1 2 3`; the last line of standard output is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


class Loop:
    """A model, loaded once, that is trained from its first weights for seed after seed."""

    def __init__(self, work: Path, device: str) -> None:
        """Load model and data from a folder that `work.write` made."""
        from transformers import AutoModelForSequenceClassification, logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        self.plan: dict[str, Any] = json.loads((work / "plain.json").read_text())
        self.device = torch.device(device)
        torch.set_float32_matmul_precision("high" if self.plan["precision"] == "tf32" else "highest")
        with np.load(work / "data.npz") as arrays:
            self.data = {name: torch.from_numpy(arrays[name]).to(self.device) for name in arrays.files}
        self.model = AutoModelForSequenceClassification.from_pretrained(
            self.plan["model"], num_labels=self.plan["labels"], dtype=torch.float32
        ).to(self.device)
        self.first = {name: value.clone() for name, value in self.model.state_dict().items()}

    def logits(self, split: str, rows: Tensor) -> Tensor:
        """Of some rows of a split."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.plan["precision"] == "bf16"):
            found: Tensor = self.model(
                input_ids=self.data[f"{split}_ids"][rows], attention_mask=self.data[f"{split}_mask"][rows]
            ).logits
        return found.float()

    def steps(self, seed: int) -> Iterator[float | None]:
        """Train a seed; gives after each update the dev accuracy where an epoch ended, else None."""
        plan = self.plan
        torch.manual_seed(seed)
        self.model.load_state_dict(self.first)
        self.model.classifier.weight.data.normal_(0.0, 0.02)
        self.model.classifier.bias.data.zero_()
        named = dict(self.model.named_parameters())
        bare = [value for name, value in named.items() if name.endswith("bias") or "LayerNorm" in name]
        rest = [value for name, value in named.items() if not (name.endswith("bias") or "LayerNorm" in name)]
        optimizer = torch.optim.AdamW(
            [{"params": rest, "weight_decay": plan["weight_decay"]}, {"params": bare, "weight_decay": 0.0}],
            lr=plan["lr"],
            eps=plan["eps"],
            fused=True,
        )
        labels, size = self.data["train_labels"], plan["batch_size"]
        total = -(-len(labels) // size) * plan["epochs"]
        warmup = int(plan["warmup_ratio"] * total)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda step: step / max(1, warmup) if step < warmup else (total - step) / max(1, total - warmup),
        )
        for _ in range(plan["epochs"]):
            self.model.train()
            batches = torch.randperm(len(labels)).to(self.device).split(size)
            for number, rows in enumerate(batches, 1):
                loss = F.cross_entropy(self.logits("train", rows), labels[rows])
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), plan["max_grad_norm"])
                optimizer.step()
                schedule.step()
                yield self.accuracy() if number == len(batches) else None

    @torch.no_grad()
    def accuracy(self) -> float:
        """On the dev split."""
        self.model.eval()
        labels = self.data["dev_labels"]
        rows = torch.arange(len(labels), device=self.device).split(self.plan["eval_batch_size"])
        found = torch.cat([self.logits("dev", one).argmax(-1) for one in rows])
        return (found == labels).double().mean().item()


def synchronise(device: str) -> None:
    """Wait for a GPU's queue."""
    if device == "cuda":
        torch.cuda.synchronize()


def arguments(text: str | None) -> argparse.ArgumentParser:
    """The options that both contenders take."""
    parser = argparse.ArgumentParser(description=text)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--max-steps", type=int, help="updates of each seed, for a probe")
    parser.add_argument("--wait", action="store_true", help="say `ready` when loaded, and begin when told on stdin")
    return parser


def begin(wait: bool) -> float:
    """Wait until told, if so asked; the time it is then."""
    if wait:
        print("ready", flush=True)
        sys.stdin.readline()
    return time.perf_counter()


def main() -> None:
    """Train the seeds; print seconds since the beginning of training and each seed's accuracy."""
    given = arguments(__doc__).parse_args()
    torch.set_num_threads(given.threads)
    loop = Loop(given.work, given.device)
    if given.device == "cuda":  # the first products load the libraries, which is part of the start
        loop.accuracy()
        synchronise(given.device)
    started = begin(given.wait)
    scores: list[float] = []
    for seed in given.seeds:
        *_, last = islice(loop.steps(seed), given.max_steps)
        scores += [] if last is None else [last]
    synchronise(given.device)
    print(json.dumps({"seconds": time.perf_counter() - started, "scores": scores}), flush=True)


if __name__ == "__main__":
    main()
