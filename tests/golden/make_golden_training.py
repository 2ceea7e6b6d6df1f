"""Write golden_training.npz: ten losses and one set of gradients, from PyTorch's Open-Unmix.

Run with torch and openunmix installed: python tests/golden/make_golden_training.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from helpers.upstream import Upstream
from nn.golden import CONFIG, GRADIENT_BATCH, OPTIONS, STEPS, batch, weights


def main() -> None:
    """Train for ten steps in float64 and keep what a test can compare with."""
    upstream = Upstream()
    torch = upstream.torch

    def network():
        made = upstream.network(weights(), "float64")
        made.lstm.dropout = 0.0
        for parameter in made.parameters():
            parameter.requires_grad = True
        return made.train()

    def tensor(array):
        return torch.from_numpy(array.transpose(1, 2, 3, 0).copy())

    found = {}
    one = network()
    x, target = batch(GRADIENT_BATCH)
    torch.nn.functional.mse_loss(one(tensor(x)), tensor(target)).backward()
    for name, parameter in one.named_parameters():
        found[f"gradient/{name}"] = parameter.grad.numpy()

    for kind, options in OPTIONS.items():
        trained = network()
        optimizer = getattr(torch.optim, kind)(trained.parameters(), **options)
        losses = []
        for step in range(STEPS):
            x, target = batch(step)
            optimizer.zero_grad()
            loss = torch.nn.functional.mse_loss(trained(tensor(x)), tensor(target))
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        found[f"{kind}/losses"] = np.array(losses)
        for name, value in trained.named_buffers():
            found[f"{kind}/{name}"] = value.numpy()
    found["config"] = np.array(repr(CONFIG))
    np.savez_compressed(Path(__file__).with_name("golden_training.npz"), **found)


if __name__ == "__main__":
    main()
