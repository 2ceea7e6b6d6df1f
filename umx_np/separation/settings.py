"""Settings of a separator, and the names and parts of its stems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..backends.contracts import Network
from ..config import SeparatorConfig, check_aggregate
from ..errors import ConfigError


class SeparatorSettings:
    """The settings of a `Separator`, which may be changed between two calls.

    Attributes
    ----------
    config : SeparatorConfig
        All of them.
    networks : dict of str to Network
        By the names of the targets.
    residual_name : str
        Name of the stem that the residual makes.
    """

    config: SeparatorConfig
    networks: dict[str, Network]
    residual_name = "residual"

    @property
    def sample_rate(self) -> float:
        """Rate in Hz of the audio."""
        return self.config.sample_rate

    @property
    def nb_channels(self) -> int:
        """Channels of the networks."""
        return self.config.nb_channels

    @property
    def niter(self) -> int:
        """EM iterations of the Wiener filter; may be changed, as the next three may."""
        return self.config.niter

    @niter.setter
    def niter(self, niter: int) -> None:
        self.config = self.config.with_(niter=niter)

    @property
    def softmask(self) -> bool:
        """Whether the first estimates are from ratio masks."""
        return self.config.softmask

    @softmask.setter
    def softmask(self, softmask: bool) -> None:
        self.config = self.config.with_(softmask=bool(softmask))

    @property
    def residual(self) -> bool:
        """Whether the residual is returned; may be set to its name, too."""
        return self.config.residual

    @residual.setter
    def residual(self, residual: bool | str) -> None:
        name = residual if isinstance(residual, str) and residual else self.residual_name
        if residual and name in self.networks:
            raise ConfigError(f"residual={name!r} is the name of a target; choose another")
        self.config = self.config.with_(residual=bool(residual))
        self.residual_name = name

    @property
    def wiener_win_len(self) -> int | None:
        """Frames that are filtered together; None filters the whole track at once."""
        return self.config.wiener_win_len

    @wiener_win_len.setter
    def wiener_win_len(self, wiener_win_len: int | None) -> None:
        self.config = self.config.with_(wiener_win_len=wiener_win_len)

    @property
    def nb_targets(self) -> int:
        """Number of networks."""
        return len(self.networks)

    @property
    def target_names(self) -> list[str]:
        """Names of the networks."""
        return list(self.networks)

    @property
    def stem_names(self) -> list[str]:
        """Names of the stems: the targets, then the residual if it is returned."""
        return self.target_names + ([self.residual_name] if self.config.residual else [])

    def holding_residual(self, aggregate: Mapping[str, Sequence[str]] | None) -> list[str]:
        """Names among the results of `to_dict` that have the residual in them."""
        if not self.config.residual:
            return []
        parts = {self.residual_name: [self.residual_name]} if aggregate is None else aggregate
        return [name for name, some in parts.items() if self.residual_name in some]

    def to_dict(
        self,
        estimates: np.ndarray,
        aggregate_dict: Mapping[str, Sequence[str]] | None = None,
    ) -> dict[str, np.ndarray]:
        """Name the stems, and sum some of them.

        Parameters
        ----------
        estimates : ndarray [shape=(nb_samples, nb_stems, nb_channels, nb_timesteps)]
            From `__call__`.
        aggregate_dict : mapping of str to sequence of str, or None
            Names of the results and the stems that are summed in them.

        Returns
        -------
        dict of str to ndarray [shape=(nb_samples, nb_channels, nb_timesteps)]

        Raises
        ------
        ConfigError
            If `aggregate_dict` names a stem that there is not.
        """
        stems = {name: estimates[:, k] for k, name in enumerate(self.stem_names)}
        if aggregate_dict is None:
            return stems
        check_aggregate(aggregate_dict, self.stem_names)
        return {
            name: np.sum([stems[part] for part in parts], axis=0)
            for name, parts in aggregate_dict.items()
        }
