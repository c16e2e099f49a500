"""How far a classifier's confidence can be believed, from its logits on a dev set; pure arrays in, numbers out."""

from __future__ import annotations

import numpy as np
from scipy import special

BINS = 15


def probabilities(logits: np.ndarray) -> np.ndarray:
    """The softmax of finite logits [..., C], in float64."""
    return np.asarray(special.softmax(logits.astype(float), axis=-1))


def expected_errors(chances: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The expected calibration error of each of R runs [R], from probabilities [R, N, C] for labels [N]; fractions.

    The mean over examples of |accuracy - mean confidence| of the bin that the example is in: 15 bins of equal width
    over the confidence, the probability of the answered class, each with its upper edge (Guo et al. 2017, eq. 3).
    """
    confidence, right = chances.max(axis=2), chances.argmax(axis=2) == labels
    place = np.ceil(confidence * BINS).astype(int) - 1  # a confidence is above 0
    place += BINS * np.arange(len(chances))[:, None]
    apart = np.bincount(place.ravel(), weights=(right - confidence).ravel(), minlength=BINS * len(chances))
    return np.asarray(np.abs(apart.reshape(-1, BINS)).sum(axis=1) / len(labels))


def expected_error(chances: np.ndarray, labels: np.ndarray) -> float:
    """As `expected_errors`, of one run's probabilities [N, C]."""
    return float(expected_errors(chances[None], labels)[0])


def briers(chances: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The Brier score of each of R runs [R], from probabilities [R, N, C] for labels [N]; from 0 to 2.

    Squared errors, summed over the classes; the mean over examples. With two classes twice the squared error of one of
    them (Brier 1950).
    """
    return np.asarray(((chances - np.eye(chances.shape[2])[labels]) ** 2).sum(axis=2).mean(axis=1))


def brier(chances: np.ndarray, labels: np.ndarray) -> float:
    """As `briers`, of one run's probabilities [N, C]."""
    return float(briers(chances[None], labels)[0])
