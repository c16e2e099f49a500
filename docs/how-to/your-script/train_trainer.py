"""A training script with transformers' own Trainer, on the small model and data that come with the harness.

`python train_trainer.py --learning_rate 6e-4 --no-bias-correction --seed 1 --output_dir out` leaves the accuracy on the
dev set in `all_results.json`. Nothing of the harness trains here: it is a witness for what its own engine does.
"""

import argparse
import json
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainingArguments

import harness
from harness.config.recipe import TaskSpec
from harness.data import tasks

MODEL = Path(harness.__file__).parent / "data" / "embedded" / "model"


class AdamWithoutCorrection(torch.optim.Optimizer):
    """AdamW as BERT was fine-tuned with: the moments are not divided by 1 - β^t."""

    def __init__(self, groups, lr, eps=1e-6, betas=(0.9, 0.999)):
        super().__init__(groups, {"lr": lr, "eps": eps, "betas": betas, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for weight in (weight for weight in group["params"] if weight.grad is not None):
                state = (
                    self.state[weight] or self.state[weight].update(m=weight * 0, v=weight * 0) or self.state[weight]
                )
                m, v, (b1, b2) = state["m"], state["v"], group["betas"]
                m.lerp_(weight.grad, 1 - b1)
                v.mul_(b2).addcmul_(weight.grad, weight.grad, value=1 - b2)
                step = m / (v.sqrt() + group["eps"]) + group["weight_decay"] * weight
                weight.sub_(step, alpha=group["lr"])


class Rows(torch.utils.data.Dataset):
    """A split as the model reads it."""

    def __init__(self, split, tokenizer):
        pairs = split.pairs or None
        self.columns = tokenizer(
            split.texts, pairs, padding="max_length", truncation=True, max_length=16, return_tensors="pt"
        )
        self.columns.pop("token_type_ids", None)  # the recipe has no segment ids
        self.columns["labels"] = torch.as_tensor(split.labels)

    def __len__(self):
        return len(self.columns["labels"])

    def __getitem__(self, row):
        return {name: column[row] for name, column in self.columns.items()}


class Ours(Trainer):
    """A Trainer with the optimizer above, on the Trainer's own groups of parameters."""

    def create_optimizer(self, *given):
        decayed = set(self.get_decay_parameter_names(self.model))
        named = list(self.model.named_parameters())
        groups = [
            {"params": [weight for name, weight in named if name in decayed], "weight_decay": self.args.weight_decay},
            {"params": [weight for name, weight in named if name not in decayed]},
        ]
        self.optimizer = AdamWithoutCorrection(groups, self.args.learning_rate)
        return self.optimizer


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--learning_rate", type=float, required=True)
    parser.add_argument("--bias-correction", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--output_dir", required=True)
    given = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    transformers.set_seed(given.seed)

    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    raw = tasks.load(TaskSpec(name="embedded"))
    train, dev = Rows(raw.train, tokenizer), Rows(raw.validation, tokenizer)
    model = AutoModelForSequenceClassification.from_pretrained(
        MODEL, num_labels=2, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1, dtype=torch.float32
    )
    steps = -(-len(train) // 16) * given.epochs
    options = TrainingArguments(
        given.output_dir, learning_rate=given.learning_rate, num_train_epochs=given.epochs, seed=given.seed,
        per_device_train_batch_size=16, per_device_eval_batch_size=64, weight_decay=0.01, adam_epsilon=1e-6,
        warmup_steps=round(0.1 * steps), max_grad_norm=1.0, eval_strategy="epoch", save_strategy="no", logging_steps=10,
        report_to="none", disable_tqdm=True, use_cpu=not torch.cuda.is_available(),
    )  # fmt: skip
    trainer = (Trainer if given.bias_correction else Ours)(
        model, options, train_dataset=train, eval_dataset=dev,
        compute_metrics=lambda found: {"accuracy": float((found.predictions.argmax(-1) == found.label_ids).mean())},
    )  # fmt: skip
    trainer.train()
    trainer.save_metrics("all", trainer.evaluate())
    trainer.save_state()
    answers = trainer.predict(dev).predictions.argmax(-1)
    rows = zip(dev.columns["labels"].tolist(), answers.tolist(), strict=True)
    lines = [json.dumps({"label": label, "prediction": answer}) for label, answer in rows]
    Path(given.output_dir, "predictions.jsonl").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
