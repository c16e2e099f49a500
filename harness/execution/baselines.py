"""Simple classifiers beside a sweep's cells: is fine-tuning worth it? Trained in seconds, and kept with the results."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np

from harness.common import metrics
from harness.common.errors import HarnessError
from harness.config.recipe import BaselineName
from harness.config.trials import Sweep
from harness.data import tasks, words
from harness.data.examples import Raw, Rows
from harness.records.record import Baseline
from harness.records.store import Store

# Signs and single letters are words too: scikit-learn's own pattern would leave nothing of a formal language.
_WORD = r"(?u)\w+|[^\w\s]"
# Rows and columns are drawn by lot for every tree, so that seeds matter; the rest is as LightGBM has it.
_TREES = {"n_estimators": 200, "subsample": 0.8, "subsample_freq": 1, "colsample_bytree": 0.5}
# Kinds of task that none is for, and what their runs are compared with instead.
_WITHOUT = {
    "completion": "the untouched model",
    "labels": "always giving the best set of labels",
    "span": "always answering nothing or the commonest",
    "choice": "always the most frequent position",
}
_SETTINGS: dict[BaselineName, str] = {
    "majority": "the most frequent class of the dev labels, as a failed run is judged by",
    "tfidf_logistic": "TF-IDF of 1- and 2-grams of words, logistic regression (L2, C = 1)",
    "tfidf_lightgbm": "TF-IDF of 1- and 2-grams of words, LightGBM (200 trees; 80 % of rows, 50 % of columns a tree)",
}


def check(sweep: Sweep) -> None:
    """Raise HarnessError where a baseline that the sweep asks for can't be trained; reads the data, trains nothing."""
    for name in sweep.baselines:
        for spec in dict.fromkeys(cell.recipe.task for cell in sweep.cells if cell.recipe.task.kind in _WITHOUT):
            raise HarnessError(
                f"the baseline {name} requires a task with one label a text or word",
                got=f"{spec.name}, task.kind: {spec.kind}",
                fix=f"Remove baselines: {_WITHOUT[spec.kind]} is what these runs are compared with",
            )
        if name == "tfidf_lightgbm" and importlib.util.find_spec("lightgbm") is None:
            raise words.lacking(
                "the baseline tfidf_lightgbm requires LightGBM, which is not installed", "lightgbm", "another baseline"
            )
        for spec in dict.fromkeys(cell.recipe.task for cell in sweep.cells) if name != "majority" else ():
            raw = tasks.load(spec)
            if not metrics.counts(raw.metric):
                raise HarnessError(
                    f"the baseline {name} requires a task with classes",
                    got=f"{spec.name}, {tasks.without_classes(raw.metric)} ({raw.metric})",
                    fix=f"Leave {name} out; the baseline majority "
                    f"{'predicts the mean' if metrics.is_regression(raw.metric) else 'answers O'} there",
                )
            if words.japanese(raw.train.texts):
                words.check_mecab(spec.name, "another baseline")


def train(sweep: Sweep, store: Store, say: Callable[[str], None]) -> None:
    """Train what the sweep's cells are compared with on the same splits over the same seeds, and keep it.

    What is kept already is not trained again where data, libraries, settings and seeds are the same. Raises
    HarnessError as `check` does.
    """
    check(sweep)
    saved, trained = store.baselines(), []
    seeds = tuple(dict.fromkeys(seeds_of_trial.seed for seeds_of_trial in sweep.due_seeds))
    for spec in dict.fromkeys(cell.recipe.task for cell in sweep.cells) if sweep.baselines else ():
        raw = tasks.load(spec)
        for name in sweep.baselines:
            wanted = _planned(name, raw, seeds)
            same = [baseline for baseline in saved if baseline.model_dump(include=set(wanted)) == wanted]
            if not same:
                say(f"Training the baseline {name} on {spec.name}.")
            trained.append(same[0] if same else _trained(wanted, name, raw))
    if tuple(trained) != saved and trained:
        store.save_baselines(tuple(trained))


def _planned(name: BaselineName, raw: Raw, seeds: tuple[int, ...]) -> dict[str, Any]:
    """What decides a baseline's result."""
    packages = {"majority": (), "tfidf_logistic": ("scikit-learn",), "tfidf_lightgbm": ("scikit-learn", "lightgbm")}[
        name
    ]
    mecab = name != "majority" and words.japanese(raw.train.texts)
    if mecab:
        packages = (*packages, "fugashi", "unidic-lite")
    return {
        "name": name,
        "settings": _SETTINGS[name] + (", words by MeCab" if mecab else ""),
        "task": raw.name,
        "metric": raw.metric,
        "data_sha256": raw.sha256,
        "versions": {package: importlib.metadata.version(package) for package in packages},
        "seeds": seeds if name == "tfidf_lightgbm" else (),
    }


def _trained(planned: dict[str, Any], name: BaselineName, raw: Raw) -> Baseline:
    labels = raw.validation.labels
    if raw.label_names is None or raw.train.words is not None:  # always the mean; always O
        value = metrics.majority(raw.metric, labels).value
        return Baseline(**planned, scores=(value,), failed=(True,), labels=(), answers=())
    classes = len(raw.label_names)
    if name == "majority":
        answers = _majority(raw, classes)
    else:
        train, dev = _features(raw)
        seeds = planned["seeds"] or (None,)
        answers = [_classifier(seed).fit(train, raw.train.labels).predict(dev) for seed in seeds]
    scored = [_score(raw, answer, classes) for answer in answers]
    return Baseline(
        **planned,
        scores=tuple(0.0 if score.value is None else score.value for score in scored),
        failed=tuple(score.at_or_below_majority for score in scored),
        labels=tuple(labels.tolist()),
        answers=tuple(tuple(answer.tolist()) for answer in answers),
    )


def _score(raw: Raw, answer: np.ndarray, classes: int) -> metrics.Score:
    return metrics.score(raw.metric, np.eye(classes)[answer], raw.validation.labels)


def _majority(raw: Raw, classes: int) -> list[np.ndarray]:
    """Always the most frequent class of the dev labels; among equals the one that scores best."""
    labels = raw.validation.labels
    counts = np.bincount(labels, minlength=classes)
    constant = [np.full(len(labels), winner) for winner in np.flatnonzero(counts == counts.max())]
    return [max(constant, key=lambda answer: _score(raw, answer, classes).value or 0.0)]


def _classifier(seed: int | None) -> Any:
    """LightGBM for a seed; logistic regression, which no seed changes (lbfgs), for none."""
    if seed is None:
        from sklearn.linear_model import LogisticRegression

        return LogisticRegression(max_iter=1000)
    from lightgbm import LGBMClassifier

    own = int(np.random.SeedSequence(seed).generate_state(1)[0] >> 1)  # it takes 31 bits
    return LGBMClassifier(**_TREES, random_state=own, n_jobs=1, deterministic=True, force_row_wise=True, verbose=-1)


def _features(raw: Raw) -> tuple[Any, Any]:
    """TF-IDF of the training and the dev texts [N, F] (CSR), a block for each text of a pair; weights of training."""
    from scipy import sparse
    from sklearn.feature_extraction.text import TfidfVectorizer

    parted: dict[str, Any] = {"token_pattern": _WORD}
    if words.japanese(raw.train.texts):
        parted = {"token_pattern": None, "tokenizer": words.mecab()}
    blocks = []
    for train, dev in zip(_texts(raw.train), _texts(raw.validation), strict=True):
        vectors = TfidfVectorizer(ngram_range=(1, 2), **parted)
        blocks.append((vectors.fit_transform(train), vectors.transform(dev)))
    train, dev = (sparse.hstack(parts, format="csr") for parts in zip(*blocks, strict=True))
    return train, dev


def _texts(rows: Rows) -> tuple[tuple[str, ...], ...]:
    return (rows.texts,) if rows.pairs is None else (rows.texts, rows.pairs)
