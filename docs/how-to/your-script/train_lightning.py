"""A training script with Lightning, as it is: digits, a CSVLogger, a seed. `pip install lightning scikit-learn`.

`python train_lightning.py --lr 1e-2 --seed 1 --out out` leaves the curve in `out/logs/metrics.csv`.
"""

import argparse

import lightning
import torch
from lightning.pytorch.loggers import CSVLogger
from sklearn.datasets import load_digits
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset


class Network(lightning.LightningModule):
    """Two layers."""

    def __init__(self, lr):
        super().__init__()
        self.lr = lr
        self.layers = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.Tanh(), torch.nn.Linear(32, 10))

    def training_step(self, batch):
        loss = functional.cross_entropy(self.layers(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch):
        self.log("val_acc", (self.layers(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.lr)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", required=True)
    given = parser.parse_args()
    lightning.seed_everything(given.seed)

    images, digits = (torch.as_tensor(array) for array in load_digits(return_X_y=True))
    data = TensorDataset(images.float() / 16, digits)
    train, dev = TensorDataset(*data[:1400]), TensorDataset(*data[1400:])
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=3, logger=CSVLogger(given.out, name="logs", version=""), log_every_n_steps=10,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Network(given.lr), DataLoader(train, 32, shuffle=True), DataLoader(dev, 400))


if __name__ == "__main__":
    main()
