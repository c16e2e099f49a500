"""A contender: `transformers.Trainer`, a process a trial. Knows nothing of the harness.

`python -m benchmarks.speed.trainer --work DIR --seeds 1`; the last line of standard output is JSON.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import AutoModelForSequenceClassification, Trainer, TrainingArguments, logging, set_seed

from .loop import arguments, begin, synchronise


class Rows(Dataset[dict[str, torch.Tensor]]):
    """A split that was tokenised before."""

    def __init__(self, arrays: Any, split: str) -> None:
        """Take the arrays of a split."""
        names = {"input_ids": "ids", "attention_mask": "mask", "labels": "labels"}
        self.columns = {name: torch.from_numpy(arrays[f"{split}_{short}"]) for name, short in names.items()}

    def __len__(self) -> int:
        return len(self.columns["labels"])

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        return {name: column[row] for name, column in self.columns.items()}


def trainer(
    plan: Mapping[str, Any],
    splits: tuple[Rows, Rows],
    seed: int,
    device: str,
    folder: str,
    max_steps: int | None = None,
    **more: Any,
) -> Trainer:
    """A Trainer of the work that `plan` (`plain.json`) says, on its training and dev split; `more` is handed on."""
    train, dev = splits
    torch.set_float32_matmul_precision("high" if plan["precision"] == "tf32" else "highest")
    set_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(
        plan["model"], num_labels=plan["labels"], dtype=torch.float32
    )
    steps = -(-len(train) // plan["batch_size"]) * plan["epochs"]
    options = TrainingArguments(
        folder,
        learning_rate=plan["lr"],
        num_train_epochs=plan["epochs"],
        max_steps=max_steps or -1,
        per_device_train_batch_size=plan["batch_size"],
        per_device_eval_batch_size=plan["eval_batch_size"],
        weight_decay=plan["weight_decay"],
        adam_epsilon=plan["eps"],
        max_grad_norm=plan["max_grad_norm"],
        warmup_steps=int(plan["warmup_ratio"] * steps),
        bf16=plan["precision"] == "bf16",
        eval_strategy="no" if max_steps else "epoch",
        save_strategy="no",
        logging_strategy="epoch",
        report_to="none",
        disable_tqdm=True,
        use_cpu=device == "cpu",
        seed=seed,
    )
    return Trainer(
        model,
        options,
        train_dataset=train,
        eval_dataset=dev,
        compute_metrics=lambda found: {"accuracy": float((found.predictions.argmax(-1) == found.label_ids).mean())},
        **more,
    )


def rows(work: Path) -> tuple[Rows, Rows]:
    """The training and the dev split of a folder that `work.write` made."""
    with np.load(work / "data.npz") as arrays:
        return Rows(arrays, "train"), Rows(arrays, "dev")


def main() -> None:
    """Train the one seed; print the seconds of `train()` and the accuracy."""
    given = arguments(__doc__).parse_args()
    torch.set_num_threads(given.threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    plan = json.loads((given.work / "plain.json").read_text())
    (seed,) = given.seeds
    with tempfile.TemporaryDirectory() as folder:
        trained = trainer(plan, rows(given.work), seed, given.device, folder, given.max_steps)
        started = begin(given.wait)
        trained.train()
        synchronise(given.device)
        seconds = time.perf_counter() - started
    scores = [entry["eval_accuracy"] for entry in trained.state.log_history if "eval_accuracy" in entry]
    print(json.dumps({"seconds": seconds, "scores": scores[-1:]}), flush=True)


if __name__ == "__main__":
    main()
