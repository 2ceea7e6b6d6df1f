"""The models as functions: `umxm`, `umx`, `umxhq`, `umxl`, `umxse`, with Open-Unmix's arguments.

Each returns a `Separator`; the ``*_spec`` functions return the networks alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypedDict

from .._support.keywords import check_keywords, pick, shows
from ..backends.contracts import Backend
from ..config import Computing, SeparationOptions
from ..network.openunmix import OpenUnmix, initial_state
from ..pretrained import get_model_info, load_model
from ..separation.separator import Separator
from ..weights.bundle import ModelBundle, TargetWeights
from ..weights.folder import check_targets

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Unpack


class _MoreKeywords(TypedDict, total=False):
    """Options that Open-Unmix's functions do not have, but `Separator` has."""

    softmask: bool
    threads: int | None
    precision: str


def _bundle(
    name: str,
    targets: Sequence[str] | None,
    pretrained: bool,
    offline: bool,
    dtype: str = "float32",
) -> ModelBundle:
    if pretrained:
        return load_model(name, targets, offline=offline, dtype=dtype)
    info = get_model_info(name)
    chosen = check_targets(targets, info.targets, name)
    return ModelBundle(
        name=name,
        targets={t: TargetWeights(info.config, initial_state(info.config)) for t in chosen},
        sample_rate=info.sample_rate,
        n_fft=info.n_fft,
        n_hop=info.n_hop,
        nb_channels=info.nb_channels,
        license=None,
    )


_SEPARATOR_DOC = """{summary}

Parameters
----------
targets : sequence of str or None
    Targets to separate, of {targets}; None takes all. With a single one, the rest of the mixture
    takes part in the iterations of the filter as a residual.
residual : bool or str
    Also return the mixture minus the targets, under this name or as ``'residual'``.
niter : int
    EM iterations of the Wiener filter.
device : {{'auto', 'cpu', 'reference', 'cuda', 'cuda:INDEX'}} or Backend
    Where to compute.
pretrained : bool
    Load the trained weights, downloading them if needed; False makes random ones.
wiener_win_len : int or None
    Frames that are filtered together; None filters the whole track at once.
filterbank : {{'torch', 'asteroid'}}
    FFT, or the same transform as a matrix product.
softmask : bool
    First estimates from ratio masks.
threads : int or None
    Threads to compute on; None means all cores.
precision : {{'full', 'fast', 'int8'}}
    ``'fast'`` computes the networks with lower precision, ``'int8'`` in eight bits.
offline : bool
    Never download.

Returns
-------
Separator

Raises
------
DownloadError
    If the weights cannot be had; the message says from where, and where to put them by hand.

Notes
-----
Same arguments as {relatives} of ``openunmix``.
"""

_SPEC_DOC = """Networks of `{name}`, without a separator.

Parameters
----------
targets : sequence of str or None
    Of {targets}; None takes all.
device : {{'auto', 'cpu', 'reference', 'cuda', 'cuda:INDEX'}} or Backend
    Where to compute.
pretrained : bool
    Load the trained weights; False makes random ones.
threads : int or None
    Threads to compute on; None means all cores.
offline : bool
    Never download.

Returns
-------
dict of str to OpenUnmix
"""


def _functions(
    name: str, summary: str
) -> tuple[Callable[..., Separator], Callable[..., Mapping[str, OpenUnmix]]]:
    """Make the two functions of a model."""

    @shows(SeparationOptions, Computing)
    def separator(
        targets: Sequence[str] | None = None,
        residual: bool | str = False,
        niter: int = 1,
        device: str | Backend = "auto",
        pretrained: bool = True,
        wiener_win_len: int | None = 300,
        filterbank: str = "torch",
        *,
        offline: bool = False,
        **options: Unpack[_MoreKeywords],
    ) -> Separator:
        check_keywords(name, options, SeparationOptions, Computing)
        return Separator.from_bundle(
            _bundle(name, targets, pretrained, offline, pick(Computing, options).weights_dtype),
            niter=niter,
            residual=residual,
            wiener_win_len=wiener_win_len,
            filterbank=filterbank,
            device=device,
            **options,
        )

    def spec(
        targets: Sequence[str] | None = None,
        device: str | Backend = "auto",
        pretrained: bool = True,
        *,
        threads: int | None = None,
        offline: bool = False,
    ) -> dict[str, OpenUnmix]:
        bundle = _bundle(name, targets, pretrained, offline)
        return {
            target: OpenUnmix.from_weights(weights, device=device, threads=threads)
            for target, weights in bundle.targets.items()
        }

    info = get_model_info(name)
    listed = ", ".join(f"``'{target}'``" for target in info.targets)
    relatives = "the functions" if info.is_bundled else f"the function ``{name}``"
    separator.__name__ = separator.__qualname__ = name
    separator.__doc__ = _SEPARATOR_DOC.format(summary=summary, targets=listed, relatives=relatives)
    spec.__name__ = spec.__qualname__ = f"{name}_spec"
    spec.__doc__ = _SPEC_DOC.format(name=name, targets=listed)
    return separator, spec


umxm, umxm_spec = _functions(
    "umxm", "Small stereo model that comes with the package; nothing is downloaded."
)
umx, umx_spec = _functions("umx", "Stereo model trained on MUSDB18.")
umxhq, umxhq_spec = _functions("umxhq", "Stereo model trained on MUSDB18-HQ, uncompressed.")
umxl, umxl_spec = _functions(
    "umxl", "Large stereo model trained on extra data; its weights are CC BY-NC-SA 4.0."
)
umxse, umxse_spec = _functions(
    "umxse", "Speech enhancement at 16 kHz, trained on Voicebank and DEMAND."
)
