"""Write tests/golden/torch_files/ with PyTorch: ``python tests/golden/make_torch_files.py``.

The tests know what each tensor holds (`tensors`), so that they need no PyTorch.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import torch

FOLDER = Path(__file__).parent / "torch_files"


def tensors() -> OrderedDict[str, torch.Tensor]:
    base = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4) / 8
    state = OrderedDict(
        float32=base,
        float64=base.double(),
        float16=base.half(),
        bfloat16=base.bfloat16(),
        int64=torch.tensor(7),
        int32=torch.arange(5, dtype=torch.int32) - 2,
        uint8=torch.arange(4, dtype=torch.uint8),
        bool=torch.tensor([True, False, True]),
        empty=torch.zeros(0, 3),
        parameter=torch.nn.Parameter(base[0].clone()),
    )
    state["transposed"] = base.permute(2, 0, 1)
    state["sliced"] = base[1, :, 1:3]
    state["shared"] = base
    # Module.state_dict sets this attribute, and torch.save keeps it.
    state._metadata = OrderedDict([("", {"version": 1})])  # type: ignore[attr-defined]
    return state


def checkpoint() -> dict[str, object]:
    """Build a checkpoint as Open-Unmix's trainer writes it, after one step."""
    model = torch.nn.Sequential(torch.nn.Linear(3, 2, bias=False), torch.nn.BatchNorm1d(2))
    with torch.no_grad():
        model[0].weight.copy_(torch.arange(6.0).reshape(2, 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.0, weight_decay=1e-5)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.3, patience=80)
    model(torch.ones(4, 3)).sum().backward()
    optimizer.step()
    scheduler.step(0.5)
    return {
        "epoch": 1,
        "state_dict": model.state_dict(),
        "best_loss": 0.5,
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
    }


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for layout in ("zip", "legacy"):
        is_zip = layout == "zip"
        for name, content in (("tensors", tensors()), ("checkpoint", checkpoint())):
            path = FOLDER / f"{name}_{layout}.pth"
            torch.save(content, path, _use_new_zipfile_serialization=is_zip)
            print(path.name, path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
