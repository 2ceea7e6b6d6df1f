"""`separate`: arrays of any layout, type and rate into stems that look like them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .._support.keywords import check_keywords, pick, shows
from .._support.progress import Progress
from ..audio import Layout, preprocess, resample
from ..config import Computing, SeparationOptions, check_aggregate
from ..pretrained import default_model, load_model
from .checks import check_samples
from .options import SeparationKeywords
from .separator import Separator

if TYPE_CHECKING:
    from typing import Unpack

    from numpy.typing import ArrayLike


@shows(SeparationOptions, Computing)
def separate(
    audio: ArrayLike,
    rate: float | None = None,
    *,
    model: str | Path | None = None,
    targets: Sequence[str] | None = None,
    aggregate: Mapping[str, Sequence[str]] | None = None,
    separator: Separator | None = None,
    progress: bool | Progress | None = None,
    offline: bool = False,
    channels_first: bool | None = None,
    **options: Unpack[SeparationKeywords],
) -> dict[str, np.ndarray]:
    """Separate an array of audio into stems.

    Parameters
    ----------
    audio : array_like [shape=(T,), (C, T), (T, C) or (N, C, T)]
        Samples, never modified: floats, or integers that are scaled by their full range.
    rate : float or None
        Sample rate of `audio` in Hz; None means the rate of the model.
    model : str, Path or None
        Published model or model folder; None means ``'umxm'``, which comes with the
        package.
    targets : sequence of str or None
        Targets to estimate; only their networks run. None takes all.
    niter, softmask, residual, wiener_win_len, filterbank, device, threads, precision
        As for `Separator`.
    aggregate : mapping of str to sequence of str, or None
        Names of the results and the stems that are summed in them.
    separator : Separator or None
        Use this one instead of loading a model; the options that describe one are then ignored.
    progress : bool, callable or None
        True shows a bar; a callable gets the fraction that is done, from 0 to 1.
    offline : bool
        Never download.
    channels_first : bool or None
        Whether the channel axis stands before the time axis; None guesses, the shorter axis being
        the channels.

    Returns
    -------
    dict of str to ndarray [shape as `audio`]
        float32 stems at the rate, length, layout and number of channels of the input. Of more than
        two channels only the first two are used and returned.

    Raises
    ------
    UmxError
        One of its children says what is wrong with an argument, the model or the device.

    Examples
    --------
    >>> from umx_np.testing import random_bundle
    >>> separator = Separator.from_bundle(random_bundle("umxse", seed=0))
    >>> noisy = np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    >>> {name: stem.shape for name, stem in separate(noisy, 16000, separator=separator).items()}
    {'speech': (16000,), 'noise': (16000,)}
    """
    check_keywords("separate", options, SeparationOptions, Computing)
    audio = check_samples("audio", audio)  # before a model is loaded
    if separator is None:
        bundle = load_model(
            default_model() if model is None else model,
            targets,
            offline=offline,
            progress=progress is True,
            dtype=pick(Computing, options).weights_dtype,
        )
        separator = Separator.from_bundle(bundle, **options)
    if aggregate is not None:
        check_aggregate(aggregate, separator.stem_names)
    layout = Layout.of(audio, channels_first=channels_first)
    model_rate = separator.sample_rate
    rate = model_rate if rate is None else rate
    batch = preprocess(audio, rate, model_rate, nb_channels=separator.nb_channels, layout=layout)
    length = layout.to_batch(audio).shape[-1]
    estimates = separator(batch, progress=progress)
    stems = separator.to_dict(estimates, aggregate)
    if rate != model_rate:
        stems = {
            name: _fit_length(resample(stem, model_rate, rate), length)
            for name, stem in stems.items()
        }
        holders = separator.holding_residual(aggregate)
        if holders:
            # What resampling to the rate of the model and back takes away is in no target.
            back = _fit_length(resample(batch, model_rate, rate), length)
            # Without the channels that `preprocess` has said are not processed.
            kept = layout.to_batch(audio)[:, : max(2, separator.nb_channels)]
            own = Layout("NCT", kept.shape[1])
            rest = preprocess(kept, nb_channels=separator.nb_channels, layout=own) - back
            for name in holders:
                stems[name] += rest
    return {name: layout.restore(stem) for name, stem in stems.items()}


def _fit_length(x: np.ndarray, length: int) -> np.ndarray:
    """Cut or extend the last axis; resampling back may be a sample off."""
    missing = length - x.shape[-1]
    if missing > 0:
        x = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, missing)])
    return x[..., :length]
