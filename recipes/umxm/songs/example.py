"""Make ``examples/song.ogg``: ``python -m recipes.umxm.songs.example SONGS/test/00000 --start 8``.

Takes some seconds of a rendered song and writes ``song.ogg`` and, for scores, the stems that it is
the sum of. With ``--scores`` (alone, or after that) the song is separated by the model that comes
with the package, the picture is drawn, and the table in ``examples/README.md`` filled in.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import tempfile
from pathlib import Path

import numpy as np

import umx_np
from umx_np.commands import main as umx_np_command
from umx_np.evaluation.sdr import find_references

from ..studio.plan import STEMS

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
MAX_BYTES = 1_000_000
_FADE_SECONDS = 0.05
_PEAK = 0.85
_BEGIN, _END = "<!-- scores:begin -->", "<!-- scores:end -->"


def write_example(
    song: Path, folder: Path, *, start: float, seconds: float, quality: float
) -> list[Path]:
    """Write an excerpt of a song and its stems as Ogg Vorbis.

    Parameters
    ----------
    song : Path
        Folder with a file for each stem.
    folder : Path
        Gets ``song.ogg`` and ``song/<stem>.ogg``.
    start, seconds : float
        The excerpt.
    quality : float
        Of the encoder, from 0 to 1.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    ValueError
        If they are too large to be kept in a repository, or the song is too short.

    Notes
    -----
    The mixture is made of the stems as they are read back, so that what the encoder lost of them
    is missing in the song too, and does not count as a mistake of the separation.
    """
    stems, rates = {}, set()
    for name, path in find_references(song, STEMS).items():
        stems[name], rate = umx_np.audio.read(path, start=start, duration=seconds)
        rates.add(rate)
    (rate,) = rates
    length = round(seconds * rate)
    for name, audio in stems.items():
        if audio.shape[1] < length:
            raise ValueError(f"{name} of {song} ends after {start + audio.shape[1] / rate:.2f} s")
    fade = np.minimum(np.arange(length) / (_FADE_SECONDS * rate), 1.0)
    # Encoding moves peaks, so there is room for that.
    gain = min(1.0, _PEAK / float(np.abs(sum(stems.values())).max()))
    total = np.zeros((2, length), np.float32)
    written = []
    for name, audio in stems.items():
        audio = (gain * fade * fade[::-1] * audio).astype(np.float32)
        out = umx_np.audio.write(folder / "song" / f"{name}.ogg", audio, rate, quality=quality)
        total += umx_np.audio.read(out)[0]
        written.append(out)
    peak = float(np.abs(total).max())
    if peak > 1.0:
        raise ValueError(
            f"the sum of the stems reaches {peak:.3f}; the song has to be rendered softer"
        )
    written.append(umx_np.audio.write(folder / "song.ogg", total, rate, quality=quality))
    size = sum(path.stat().st_size for path in written)
    if size > MAX_BYTES:
        raise ValueError(
            f"{size} bytes are more than {MAX_BYTES}; take fewer --seconds or --quality"
        )
    return written


def update_scores(folder: Path, model: str) -> str:
    """Separate the example, draw it, and fill in the table of its README.

    Parameters
    ----------
    folder : Path
        With the example.
    model : str
        Name of the model, or its folder.

    Returns
    -------
    str
        The table as the command prints it.
    """
    song, picture = folder / "song.ogg", folder / "song.png"
    printed = io.StringIO()
    with tempfile.TemporaryDirectory() as outdir, contextlib.redirect_stdout(printed):
        arguments = ["--model", model, "--reference", str(folder / "song")]
        arguments += ["--plot", str(picture), "--outdir", outdir]
        status = umx_np_command(["separate", str(song), *arguments])
    if status:
        raise SystemExit(status)
    _shrink(picture)
    # After the paths of the stems.
    _, title, rows = printed.getvalue().partition("SDR of")
    table = (title + rows).strip()
    readme = folder / "README.md"
    text = readme.read_text("utf-8")
    block = f"{_BEGIN}\n\n```text\n{table}\n```\n\n{_END}"
    new, count = re.subn(f"{_BEGIN}.*{_END}", lambda _: block, text, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"{readme} has {count} places for scores, instead of one")
    readme.write_text(new, "utf-8")
    return table


def _shrink(picture: Path) -> None:
    """Store a picture with 256 colours: those of the spectrograms, and greys for the rest."""
    from matplotlib import colormaps
    from PIL import Image  # comes with matplotlib

    greys = np.linspace(0.0, 1.0, 24)[:, np.newaxis].repeat(3, axis=1)
    colours = np.concatenate([colormaps["magma"](np.linspace(0.0, 1.0, 232))[:, :3], greys])
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.rint(255.0 * colours).astype(np.uint8).tobytes())
    image = Image.open(picture).convert("RGB")
    image.quantize(palette=palette, dither=Image.Dither.NONE).save(picture, optimize=True)


def main() -> None:
    """Parse the command line and write the example, its scores, or both."""
    parser = argparse.ArgumentParser(
        prog="python -m recipes.umxm.songs.example", description=__doc__
    )
    parser.add_argument("song", type=Path, nargs="?", help="folder of a rendered song")
    parser.add_argument("--start", type=float, default=0.0, help="of the excerpt, in seconds")
    parser.add_argument("--seconds", type=float, default=12.0)
    parser.add_argument("--quality", type=float, default=0.4, help="of the encoder, from 0 to 1")
    parser.add_argument("--out", type=Path, default=EXAMPLES, help="default: examples")
    parser.add_argument("--scores", action="store_true", help="separate it and note the scores")
    parser.add_argument("--model", default="umxm", help="for the scores (default: umxm)")
    options = parser.parse_args()
    if options.song is not None:
        excerpt = {"start": options.start, "seconds": options.seconds}
        for path in write_example(options.song, options.out, quality=options.quality, **excerpt):
            print(f"{path} ({path.stat().st_size / 1e3:.0f} kB)")
    elif not options.scores:
        parser.error("give the folder of a song, --scores, or both")
    if options.scores:
        print(update_scores(options.out, options.model))


if __name__ == "__main__":
    main()
