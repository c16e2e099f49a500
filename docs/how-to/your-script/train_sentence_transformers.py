"""A training script with sentence-transformers: does one sentence follow from another, by the cosine of the two?

`pip install sentence-transformers`; `python train_sentence_transformers.py --lr 1e-3 --seed 1 --out out` leaves the
average precision of the cosine in `out/result.json`. Model and data are the small ones of the harness.
"""

import argparse
import json
from pathlib import Path

import datasets
import transformers
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.evaluation import BinaryClassificationEvaluator
from sentence_transformers.sentence_transformer.losses import ContrastiveLoss

import harness
from harness.config.recipe import TaskSpec
from harness.data import tasks

MODEL = Path(harness.__file__).parent / "data" / "embedded" / "model"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", required=True)
    given = parser.parse_args()
    datasets.disable_progress_bars()
    transformers.set_seed(given.seed)

    raw = tasks.load(TaskSpec(name="embedded"))
    train = datasets.Dataset.from_dict(
        {"first": raw.train.texts, "second": raw.train.pairs, "label": raw.train.labels.tolist()}  # 1: it follows
    ).select(range(320))
    model = SentenceTransformer(str(MODEL), device="cpu")
    options = SentenceTransformerTrainingArguments(
        given.out, learning_rate=given.lr, num_train_epochs=1, seed=given.seed, per_device_train_batch_size=32,
        warmup_steps=3, save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True,
    )  # fmt: skip
    SentenceTransformerTrainer(model, options, train_dataset=train, loss=ContrastiveLoss(model)).train()
    dev = raw.validation
    score = BinaryClassificationEvaluator(dev.texts, dev.pairs, dev.labels.tolist(), write_csv=False)
    Path(given.out, "result.json").write_text(json.dumps(score(model)))


if __name__ == "__main__":
    main()
