"""How far a classifier's confidence can be believed, from its logits on a dev set; pure arrays in, numbers out."""

from __future__ import annotations

import numpy as np
from scipy import special

BINS = 15


def probabilities(logits: np.ndarray) -> np.ndarray:
    """The softmax of finite logits [..., C], in float64."""
    return np.asarray(special.softmax(logits.astype(float), axis=-1))


def expected_error(chances: np.ndarray, labels: np.ndarray) -> float:
    """The expected calibration error of probabilities [N, C] for labels [N], a fraction.

    The mean over examples of |accuracy - mean confidence| of the bin that the example is in: 15 bins of equal width
    over the confidence, the probability of the answered class, each with its upper edge (Guo et al. 2017, eq. 3).
    """
    confidence, right = chances.max(axis=1), chances.argmax(axis=1) == labels
    place = np.ceil(confidence * BINS).astype(int) - 1  # a confidence is above 0
    apart = np.bincount(place, weights=right - confidence, minlength=BINS)
    return float(np.abs(apart).sum() / len(labels))


def brier(chances: np.ndarray, labels: np.ndarray) -> float:
    """The Brier score of probabilities [N, C] for labels [N], from 0 to 2: squared errors, summed over the classes.

    The mean over examples; with two classes twice the squared error of one of them (Brier 1950).
    """
    return float(((chances - np.eye(chances.shape[1])[labels]) ** 2).sum(axis=1).mean())
