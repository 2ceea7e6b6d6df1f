"""Stems of PyTorch's Open-Unmix: ``python -m umx_np.commands.upstream_stems MODEL SONG STEMS``.

Only ``umx-np models --verify`` starts this, as a process of its own: the package does without
PyTorch, and nothing else may come to import it.
"""

from __future__ import annotations

import importlib
import sys

# Of a process that could not import what it needs.
NOT_INSTALLED = 3


def main(argv: list[str] | None = None) -> int:
    """Separate an excerpt in double precision, as Open-Unmix's function of that name does.

    Parameters
    ----------
    argv : list of str or None
        Name of the model; file with the excerpt, an array [shape=(nb_channels, nb_timesteps)] in
        NumPy's format; and file for the stems, arrays of that shape by their names. The weights are
        those in ``TORCH_HOME``.

    Returns
    -------
    int
        0, or `NOT_INSTALLED` after a line on stderr.
    """
    model, song, stems = sys.argv[1:] if argv is None else argv
    try:
        torch = importlib.import_module("torch")
        openunmix = importlib.import_module("openunmix")
        importlib.import_module("openunmix.model")
    except ImportError as error:
        print(error, file=sys.stderr)
        return NOT_INSTALLED
    import numpy as np

    # Several of its constants are made in this dtype.
    torch.set_default_dtype(torch.float64)
    with torch.no_grad():
        separator = getattr(openunmix, model)(niter=1, device="cpu")
        separator.eval()
        audio = torch.from_numpy(np.load(song).astype(np.float64))
        estimates = separator(audio[None])[0].numpy()
    np.savez(stems, **dict(zip(separator.target_models, estimates, strict=True)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
