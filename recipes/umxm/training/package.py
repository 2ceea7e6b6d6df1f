"""Put a trained model into the package: ``python -m recipes.umxm.training.package RUN/settled``.

The matrices are stored in eight bits. What the run has been told stays with them, without the
names of folders, which mean nothing elsewhere. Beside them goes ATTRIBUTION.md. The losses of all
stages, with the commit of each, are kept in ``log/``.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from umx_np.pretrained.loading import get_model_info
from umx_np.weights import load_folder, save_folder
from umx_np.weights.safetensors_files import parse_json

NAME = "umxm"
HERE = Path(__file__).resolve().parents[1]
ASSETS = HERE.parents[1] / "umx_np" / "assets" / NAME
MAX_BYTES = 25_000_000
# The middle of the levels that excerpts of the training have (`MIX_LEVEL`): `umx_np.framing.levels`
# brings music that is more than 4 dB away from it to these levels.
INPUT_LEVEL = -16.0


def package(run: Path, destination: Path = ASSETS) -> list[Path]:
    """Write the folder of the model that comes with umx_np.

    Parameters
    ----------
    run : Path
        Folder of the last stage, with all four targets.
    destination : Path
        Folder to write; files of the same names are replaced.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    ValueError
        If the run is not the model that the registry describes, or too large.
    """
    info = get_model_info(NAME)
    bundle = load_folder(run, info.targets, dtype=None)
    for target, weights in bundle.targets.items():
        if weights.config != info.config:
            raise ValueError(
                f"{target} has {weights.config}, umx_np/pretrained/models.json has {info.config}"
            )
    found = (bundle.sample_rate, bundle.n_fft, bundle.n_hop, bundle.nb_channels)
    expected = (info.sample_rate, info.n_fft, info.n_hop, info.nb_channels)
    if found != expected:
        raise ValueError(f"the run has rate, n_fft, n_hop, nb_channels={found}, not {expected}")
    descriptions = {
        target: without_places(parse_json((run / f"{target}.json").read_bytes(), target))
        for target in bundle.targets
    }
    written = save_folder(
        replace(bundle, name=NAME, license=info.license, input_level=INPUT_LEVEL),
        destination,
        "safetensors",
        dtype="int8",
        descriptions=descriptions,
    )
    written.append(Path(shutil.copyfile(HERE / "ATTRIBUTION.md", destination / "ATTRIBUTION.md")))
    size = sum(path.stat().st_size for path in written)
    if size > MAX_BYTES:
        raise ValueError(f"{destination} has {size} bytes, more than {MAX_BYTES}")
    return written


def keep_log(runs: Path, destination: Path = HERE / "log") -> list[Path]:
    """Copy what the trainer wrote about each stage and target: settings, losses, commit, curve.

    Parameters
    ----------
    runs : Path
        Folder with a folder for each stage.
    destination : Path
        Folder to write; logs of other stages that it holds are removed.

    Returns
    -------
    list of Path
        The files written, ``<stage>-<target>.json`` and ``.png``.
    """
    shutil.rmtree(destination, ignore_errors=True)
    destination.mkdir(parents=True)
    written = []
    for stage in sorted(path for path in runs.iterdir() if path.is_dir()):
        for target in get_model_info(NAME).targets:
            results = stage / f"{target}.json"
            if not results.exists():
                continue
            path = destination / f"{stage.name}-{target}.json"
            content = without_places(parse_json(results.read_bytes(), target))
            path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
            written.append(path)
            if (stage / f"{target}.png").exists():
                written.append(
                    Path(shutil.copyfile(stage / f"{target}.png", path.with_suffix(".png")))
                )
    return written


def without_places(value: Any) -> Any:
    """Replace names of files and folders, with a slash in them, by their last part.

    Parameters
    ----------
    value : object
        What JSON may hold.

    Returns
    -------
    object
        A copy.

    Examples
    --------
    >>> without_places({"args": {"root": "/home/me/songs", "lr": 0.001}, "files": ["a/b.wav"]})
    {'args': {'root': 'songs', 'lr': 0.001}, 'files': ['b.wav']}
    """
    if isinstance(value, dict):
        return {key: without_places(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_places(item) for item in value]
    if isinstance(value, str) and "/" in value:
        return Path(value).name
    return value


def main() -> None:
    """Parse the command line and write the folder."""
    parser = argparse.ArgumentParser(
        prog="python -m recipes.umxm.training.package", description=__doc__
    )
    parser.add_argument("run", type=Path, help="folder of the run, with safetensors and JSON files")
    parser.add_argument("--out", type=Path, default=ASSETS, help="default: umx_np/assets/umxm")
    options = parser.parse_args()
    written = package(options.run, options.out)
    if options.out == ASSETS:
        written += keep_log(options.run.parent)
    for path in written:
        print(f"{path} ({path.stat().st_size / 1e6:.2f} MB)")


if __name__ == "__main__":
    main()
