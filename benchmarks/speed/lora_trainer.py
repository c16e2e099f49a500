"""A contender: `transformers.Trainer` with an adapter by `peft`, a process a trial. Knows nothing of the harness.

`python -m benchmarks.speed.lora_trainer --work DIR --seeds 1`; the last line of standard output is JSON.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import Dataset

from .loop import arguments
from .peaks import Peaks

_WARM = 3  # updates before the clock runs


class Rows(Dataset[dict[str, torch.Tensor]]):
    """Prompts with their answers as token ids, and labels where the answer stands."""

    def __init__(self, examples: Sequence[dict[str, list[int]]]) -> None:
        """Take the examples."""
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        return {name: torch.tensor(values) for name, values in self.examples[row].items()}


def trainer(plan: dict[str, Any], seed: int, folder: str) -> tuple[Any, list[float]]:
    """A Trainer of an adapter as `plan` says; and the list that gets the CPU time after each update."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments, set_seed

    set_seed(seed)
    base = AutoModelForCausalLM.from_pretrained(plan["model"], dtype=torch.float32, attn_implementation="eager")
    config = LoraConfig(
        task_type="CAUSAL_LM", r=plan["lora_rank"], lora_alpha=plan["lora_alpha"], lora_dropout=0.0,
        target_modules=["c_attn"], fan_in_fan_out=True,
    )  # fmt: skip
    marks: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        """Notes when an update ends."""

        def on_step_end(self, *given: Any, **more: Any) -> None:
            """Note it."""
            marks.append(time.process_time())

    options = TrainingArguments(
        folder, learning_rate=plan["lr"], num_train_epochs=plan["epochs"],
        per_device_train_batch_size=plan["batch_size"], weight_decay=plan["weight_decay"],
        adam_epsilon=plan["eps"], max_grad_norm=plan["max_grad_norm"], save_strategy="no", logging_strategy="no",
        report_to="none", disable_tqdm=True, use_cpu=True, seed=seed,
    )  # fmt: skip
    model = get_peft_model(base, config)
    return Trainer(model, options, train_dataset=Rows(plan["train"]), callbacks=[Clock()]), marks


def main() -> None:
    """Train the one seed; print the CPU seconds of an update and the peaks of the process's memory."""
    given = arguments(__doc__).parse_args()
    torch.set_num_threads(given.threads)
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    plan = json.loads((given.work / "plain.json").read_text())
    (seed,) = given.seeds
    with Peaks() as peaks, tempfile.TemporaryDirectory() as folder:
        trained, marks = trainer(plan, seed, folder)
        trained.train()
    seconds = (marks[-1] - marks[_WARM - 1]) / (len(marks) - _WARM)
    print(json.dumps({"cpu_seconds": seconds, **peaks.bytes}), flush=True)


if __name__ == "__main__":
    main()
