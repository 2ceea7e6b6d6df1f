"""Write the golden files: what openunmix 1.3.0 computes in float64 for small seeded cases.

Run with torch and openunmix installed (CONTRIBUTING.md says how)::

    python tests/golden/make_golden.py

The inputs are not stored: `golden_cases` makes them again from their seeds, with numbers that do
not depend on the version of NumPy. Outputs are stored in double precision.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from helpers import golden_cases
from helpers.upstream import Upstream

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Compute every case and write one file per kind."""
    upstream = Upstream()

    outputs = {}
    for name, (weights, x) in golden_cases.networks().items():
        outputs[name] = upstream.forward(weights, x)
    write("golden_network.npz", outputs)

    outputs = {}
    for name, (x, n_fft, n_hop, center) in golden_cases.transforms().items():
        forward, inverse = upstream.filterbanks(n_fft=n_fft, n_hop=n_hop, center=center)
        outputs[f"{name}/stft"] = forward(x)
        if center:
            masked = golden_cases.masked(outputs[f"{name}/stft"])
            outputs[f"{name}/istft"] = inverse(masked, length=x.shape[-1])
    write("golden_stft.npz", outputs)

    outputs = {}
    for name, (estimates, mix_stft, options) in golden_cases.filters().items():
        outputs[name] = upstream.wiener(estimates, mix_stft, **options)
    write("golden_wiener.npz", outputs)

    outputs = {}
    for name, (bundle, audio, options) in golden_cases.separations().items():
        outputs[name] = upstream.separate(bundle, audio, **options)
    write("golden_separator.npz", outputs)


def write(name: str, outputs: dict[str, np.ndarray]) -> None:
    """Check and store the arrays of one kind."""
    for case, array in outputs.items():
        assert np.isfinite(array).all(), f"{name}: {case} is not finite"
        assert array.dtype in (np.float64, np.complex128), f"{name}: {case} is {array.dtype}"
    np.savez_compressed(HERE / name, **outputs)
    print(f"{name}: {len(outputs)} arrays, {(HERE / name).stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
