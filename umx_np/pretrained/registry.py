"""The models that have names, as data: files, hashes, licences and architectures.

`PUBLISHED` are those of Open-Unmix, which are downloaded; `BUNDLED` are part of this package. The
eight hexadecimal digits in the name of a published file are the beginning of its SHA-256. Where the
whole value or other hashes are known they are listed here, and all of them are verified.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from ..config import ModelConfig


@dataclass(frozen=True)
class PublishedFile:
    """One file of weights and how to recognise it.

    Attributes
    ----------
    target : str
        What the network extracts.
    filename : str
        Name of the file, at its source and in the cache.
    url : str
        Where it is published.
    sha256 : str
        SHA-256 in hexadecimal digits, or the beginning of it.
    sha512, md5 : str or None
        Further hashes, where known.
    size : int or None
        Exact size in bytes, where known.
    """

    target: str
    filename: str
    url: str
    sha256: str
    sha512: str | None = None
    md5: str | None = None
    size: int | None = None

    @property
    def hashes(self) -> dict[str, str]:
        """Known hashes by algorithm; each is the beginning of the digest or all of it."""
        known = {"sha256": self.sha256, "sha512": self.sha512, "md5": self.md5}
        return {algorithm: value for algorithm, value in known.items() if value is not None}

    @property
    def nb_verified_bits(self) -> int:
        """Bits of the longest hash that is known; MD5 does not count, since it can be forged."""
        return max(4 * len(value) for name, value in self.hashes.items() if name != "md5")


@dataclass(frozen=True)
class ModelInfo:
    """A model that has a name.

    Attributes
    ----------
    name : str
        Name in the registry.
    description : str
        One line.
    license : str or None
        Licence of the weights; None where the publisher's page has to be asked.
    non_commercial : bool
        Whether the licence forbids commercial use.
    page : str
        Where the model is described.
    files : mapping of str to PublishedFile
        What is downloaded: one per target, in the order in which stems are returned. Empty for a
        model that comes with the package.
    config : ModelConfig
        Architecture of each network.
    sample_rate, n_fft, n_hop, nb_channels
        As in `SeparatorConfig`.
    nb_parameters : int
        Numbers in each network.
    bundled_targets : tuple of str
        Targets of a model that comes with the package.
    bytes_per_number : int
        4 for float32, 1 for matrices of eight bits.
    """

    name: str
    description: str
    license: str | None
    non_commercial: bool
    page: str
    files: Mapping[str, PublishedFile]
    config: ModelConfig
    sample_rate: float
    n_fft: int
    n_hop: int
    nb_channels: int
    nb_parameters: int
    bundled_targets: tuple[str, ...] = ()
    bytes_per_number: int = 4

    @property
    def is_bundled(self) -> bool:
        """Whether the model comes with the package, so that nothing is downloaded."""
        return bool(self.bundled_targets)

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the targets, in order."""
        return self.bundled_targets or tuple(self.files)

    @property
    def nb_bytes(self) -> int:
        """Size of the numbers of all networks, as they are stored."""
        return self.bytes_per_number * self.nb_parameters * len(self.targets)

    @property
    def max_file_size(self) -> int:
        """Bytes that no file exceeds: its numbers, and room for what describes them."""
        return 4 * self.nb_parameters + (4 << 20)


# 14 kHz at 44.1 kHz, where Open-Unmix reads up to 16 kHz.
_MUSIC_SMALL = ModelConfig(nb_bins=2049, nb_channels=2, hidden_size=384, max_bin=1301)
_MUSIC = ModelConfig(nb_bins=2049, nb_channels=2, hidden_size=512, max_bin=1487)
_MUSIC_LARGE = ModelConfig(nb_bins=2049, nb_channels=2, hidden_size=1024, max_bin=1487)
_SPEECH = ModelConfig(nb_bins=513, nb_channels=1, hidden_size=256, max_bin=513)


def _files(
    record: int, names: tuple[str, ...], size: int | None = None, **hashes: Mapping[str, str]
) -> Mapping[str, PublishedFile]:
    """Files of a Zenodo record, each named target, separator and eight digits of SHA-256."""
    files = {}
    for name in names:
        target, prefix = name[:-9], name[-8:]
        files[target] = PublishedFile(
            target=target,
            filename=f"{name}.pth",
            url=f"https://zenodo.org/records/{record}/files/{name}.pth",
            sha256=hashes.get("sha256", {}).get(target, prefix),
            sha512=hashes.get("sha512", {}).get(target),
            md5=hashes.get("md5", {}).get(target),
            size=size,
        )
    return MappingProxyType(files)


_UMXM = ModelInfo(
    name="umxm",
    description="vocals, drums, bass, other; small, comes with umx_np",
    license="MIT",
    non_commercial=False,
    page=str(Path(__file__).parents[1] / "assets" / "umxm" / "ATTRIBUTION.md"),
    files=MappingProxyType({}),
    bundled_targets=("vocals", "drums", "bass", "other"),
    config=_MUSIC_SMALL,
    sample_rate=44100.0,
    n_fft=4096,
    n_hop=1024,
    nb_channels=2,
    nb_parameters=5_547_568,
    bytes_per_number=1,
)

_UMX = ModelInfo(
    name="umx",
    description="vocals, drums, bass, other; trained on MUSDB18",
    license="MIT",
    non_commercial=False,
    page="https://zenodo.org/records/3370486",
    files=_files(
        3370486,
        ("vocals-c8df74a5", "drums-5a48008b", "bass-646024d3", "other-f8e132cc"),
        sha512={
            "vocals": (
                "9c6db1a2ad96e9d94bf51c0178e1ae83101b5d4e150e7fc3bbb827c57747c109"
                "7f892043feaf8fba8f679cceca6e30407d28c7f0abc86e868dc51aa19d6e136c"
            ),
            "drums": (
                "316fadd245217df8f5031ac0d5c5b9686abd262bf62cd686891672157a88805c"
                "57aa11d43eb85d985b757ec801911f6426e92fc4c9282553f1b8506c0ef55e93"
            ),
            "bass": (
                "159f541e0e21fcd9505d2cf4e6ec2623fb6850bdde2bcd84537f1060ba26e372"
                "a9e43c1d1bbd3d4da6cb75f7d40993fde69e3e7bc48fb83775634948889cce37"
            ),
            "other": (
                "19e77e74e5cf2311dcd74733e0d8dd63c3a8b9fab9282017661c90a41f1091ca"
                "5fd1b628f3be371d6b4ab3f0d501d85fc13b8c5af3a426479ccf9f53769a0253"
            ),
        },
    ),
    config=_MUSIC,
    sample_rate=44100.0,
    n_fft=4096,
    n_hop=1024,
    nb_channels=2,
    nb_parameters=8_893_348,
)

_UMXHQ = ModelInfo(
    name="umxhq",
    description="vocals, drums, bass, other; trained on MUSDB18-HQ",
    license="MIT",
    non_commercial=False,
    page="https://zenodo.org/records/3370489",
    files=_files(
        3370489,
        ("vocals-b62c91ce", "drums-9619578f", "bass-8d85a5bd", "other-b52fbbf7"),
        size=35_637_796,
        sha256={
            "vocals": "b62c91cedbc7a066f1778ead5b5cecb377aa3a46a31af1cce7c5c8769339d083",
            "drums": "9619578f885c54737cb0234f9f9a4a679ee4f31438fd77fd1dbe02bb16c2da0a",
            "bass": "8d85a5bd3f996a8867fca0e8442e077e5a3f5ec747a6112742452a8f347b39c8",
            "other": "b52fbbf76479e752bd72e02304c602ac7802aa5bfbfb9cd12054b2695d5093ab",
        },
        md5={
            "vocals": "d918985fad0fedf6d9ce89e279aa7218",
            "drums": "cebf76e196e73e85d247f462c31e36fc",
            "bass": "8cc37d31903fe48306468ee968f4b1b6",
            "other": "8637606623ed7c74986789c3b1f94bc6",
        },
        sha512={
            "vocals": (
                "10eafb19abcb4a8e924964882238ea7442db38760cceda415be15600c34c6574"
                "7e3e369d60a571b160ea4f3c85ffcfd07265b217ed16a6319c234e59d0955ae7"
            ),
            "drums": (
                "b6947dc9cf2f75f9f80e148824cd9cc746944ecbb61f75bab29c5fc39c920fe3"
                "9488dc4ddff162ad7f2e10bdaa8b3373bee3d2bf9e65f0fba8a439dbfa8314fa"
            ),
            "bass": (
                "e083c4118d1fa12bb4e00c3c03cdf2d17056d37724fd2fa3ab8346a896f632e1"
                "7db31e2b579fbf7cd2837dbd33171a9cd3248927872d81a63e5376c474205c54"
            ),
            "other": (
                "66bf4b9a7602a46b2eb12de14c667caa4ee235ce7207b2b49bc51866509f4868"
                "03a2f5adafdcf7b98eda2684562264b199fad144b7e15f466a2e80b6f8ee9124"
            ),
        },
    ),
    config=_MUSIC,
    sample_rate=44100.0,
    n_fft=4096,
    n_hop=1024,
    nb_channels=2,
    nb_parameters=8_893_348,
)

_UMXL = ModelInfo(
    name="umxl",
    description="vocals, drums, bass, other; large, trained on extra private stems",
    license="CC BY-NC-SA 4.0",
    non_commercial=True,
    page="https://zenodo.org/records/5069601",
    # Only the beginning of the SHA-256 is published: 32 bits, which the log says.
    files=_files(5069601, ("vocals-bccbd9aa", "drums-69e0ebd4", "bass-2ca1ce51", "other-c8c5b3e6")),
    config=_MUSIC_LARGE,
    sample_rate=44100.0,
    n_fft=4096,
    n_hop=1024,
    nb_channels=2,
    nb_parameters=28_257_188,
)

_UMXSE = ModelInfo(
    name="umxse",
    description="speech, noise; mono 16 kHz, trained on Voicebank+DEMAND by Sony",
    license=None,
    non_commercial=False,
    page="https://zenodo.org/records/3786908",
    files=_files(
        3786908,
        ("speech_f5e0d9f9", "noise_04a6fc2d"),
        sha512={
            "speech": (
                "32832e498f250281d8cc76f097d56d51204f171b77ee886d00cfadcdaa306a68"
                "5fddc1b33aa1114cbd6eeee8708ec419599f6bc67353a8b22efdbd1e98fbfd0b"
            ),
            "noise": (
                "5dc71948bc55c3f89b4e2d26fcf32a9835537750eadf61d9e5d96468c7d7b480"
                "200ae772b9db88d645d17a8a12b7226d80cc055e953d9ab5cba1c508f3b87d9e"
            ),
        },
    ),
    config=_SPEECH,
    sample_rate=16000.0,
    n_fft=1024,
    n_hop=512,
    nb_channels=1,
    nb_parameters=1_583_622,
)

PUBLISHED: Mapping[str, ModelInfo] = MappingProxyType(
    {model.name: model for model in (_UMX, _UMXHQ, _UMXL, _UMXSE)}
)
BUNDLED: Mapping[str, ModelInfo] = MappingProxyType({_UMXM.name: _UMXM})
