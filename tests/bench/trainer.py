"""A contender: `transformers.Trainer`, a process a trial. Knows nothing of the harness.

`python -m tests.bench.trainer --work DIR --seeds 1`; the last line of standard output is JSON.
"""

from __future__ import annotations

import json
import tempfile
import time
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


def main() -> None:
    """Train the one seed; print the seconds of `train()` and the accuracy."""
    given = arguments(__doc__).parse_args()
    torch.set_num_threads(given.threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    plan = json.loads((given.work / "plain.json").read_text())
    with np.load(given.work / "data.npz") as arrays:
        train, dev = Rows(arrays, "train"), Rows(arrays, "dev")
    (seed,) = given.seeds
    torch.set_float32_matmul_precision("high" if plan["precision"] == "tf32" else "highest")
    set_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(
        plan["model"], num_labels=plan["labels"], dtype=torch.float32
    )
    steps = -(-len(train) // plan["batch_size"]) * plan["epochs"]
    with tempfile.TemporaryDirectory() as folder:
        options = TrainingArguments(
            folder,
            learning_rate=plan["lr"],
            num_train_epochs=plan["epochs"],
            max_steps=given.max_steps or -1,
            per_device_train_batch_size=plan["batch_size"],
            per_device_eval_batch_size=plan["eval_batch_size"],
            weight_decay=plan["weight_decay"],
            adam_epsilon=plan["eps"],
            max_grad_norm=plan["max_grad_norm"],
            warmup_steps=int(plan["warmup_ratio"] * steps),
            bf16=plan["precision"] == "bf16",
            eval_strategy="no" if given.max_steps else "epoch",
            save_strategy="no",
            logging_strategy="epoch",
            report_to="none",
            disable_tqdm=True,
            use_cpu=given.device == "cpu",
            seed=seed,
        )
        trainer = Trainer(
            model,
            options,
            train_dataset=train,
            eval_dataset=dev,
            compute_metrics=lambda found: {"accuracy": float((found.predictions.argmax(-1) == found.label_ids).mean())},
        )
        started = begin(given.wait)
        trainer.train()
        synchronise(given.device)
        seconds = time.perf_counter() - started
    scores = [entry["eval_accuracy"] for entry in trainer.state.log_history if "eval_accuracy" in entry]
    print(json.dumps({"seconds": seconds, "scores": scores[-1:]}), flush=True)


if __name__ == "__main__":
    main()
