"""A training script that knows nothing of the harness: scikit-learn's MLPClassifier on handwritten digits."""

import argparse
import csv
import json
import warnings
from pathlib import Path

from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

parser = argparse.ArgumentParser()
parser.add_argument("--learning-rate", type=float, required=True)
parser.add_argument("--activation", required=True)
parser.add_argument("--seed", type=int, required=True)
parser.add_argument("--out", type=Path, required=True)
options = parser.parse_args()
warnings.simplefilter("ignore", ConvergenceWarning)  # it stops after so many epochs, as it is told to

images, digits = load_digits(return_X_y=True)
train_x, dev_x, train_y, dev_y = train_test_split(images / 16, digits, test_size=0.25, random_state=0)
network = MLPClassifier(
    (32, 32, 32), activation=options.activation, solver="sgd", learning_rate_init=options.learning_rate, max_iter=20,
    random_state=options.seed,
)  # fmt: skip
network.fit(train_x, train_y)

answers = network.predict(dev_x)
accuracy = float((answers == dev_y).mean())
(options.out / "result.json").write_text(json.dumps({"accuracy": accuracy}))
with (options.out / "curve.csv").open("w") as stream:
    csv.writer(stream).writerows([("epoch", "loss"), *enumerate(network.loss_curve_, 1)])
with (options.out / "predictions.csv").open("w") as stream:
    csv.writer(stream).writerows([("label", "prediction"), *zip(dev_y, answers, strict=True)])
print(f"accuracy {accuracy:.3f}")
