"""A training script in plain PyTorch.

`python train_torch.py --lr 0.5 --seed 1 --out out` leaves a line of JSON a step in `out/log.jsonl`.
"""

import argparse
import json
from pathlib import Path

import torch


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.manual_seed(given.seed)

    inputs = torch.randn(200, 2)
    labels = (inputs.prod(1) > 0).long()
    network = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
    optimizer = torch.optim.SGD(network.parameters(), given.lr)
    with (given.out / "log.jsonl").open("w") as log:
        for step in range(1, 101):
            loss = torch.nn.functional.cross_entropy(network(inputs), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step % 10 == 0:
                accuracy = (network(inputs).argmax(1) == labels).float().mean().item()
                log.write(json.dumps({"step": step, "loss": loss.item(), "accuracy": accuracy}) + "\n")


if __name__ == "__main__":
    main()
