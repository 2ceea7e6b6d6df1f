"""The recurrent layers of whole tracks on the card, in chunks of frames."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from .activations import Activations, spans_of

if TYPE_CHECKING:
    from .network import NetworkStack


def run_layers(
    stack: NetworkStack,
    encoded: Activations,
    group: slice,
    *,
    nb_frames: int,
    chunk: int,
    new_activations: Callable[[int, int, int], Activations],
    tick: Callable[[float], None] | None = None,
) -> None:
    """Replace the output of `encode` by that of `combine`, for a group of targets.

    All sequences of the group, both directions of every target, walk through the track side by
    side: while direction 0 is at the first chunk, direction 1 is at the last.

    Parameters
    ----------
    stack : NetworkStack
        The networks.
    encoded : Activations
        Of all targets of the stack over the whole track; those of the group are replaced.
    group : slice
        Targets to compute.
    nb_frames : int
        Frames of the track.
    chunk : int
        Frames of a step.
    new_activations : callable
        Makes room for the outputs of a layer: gets targets, directions, and units.
    tick : callable or None
        Told the share of the work that each step has started.
    """
    config, everything = stack.config, slice(None)
    nb_targets, nb_directions = group.stop - group.start, config.nb_directions
    spans = spans_of(nb_frames, chunk)
    inputs, targets, spare = encoded, group, None
    for layer in range(config.nb_layers):
        outputs = spare or new_activations(nb_targets, nb_directions, config.lstm_hidden_size)
        scan = stack.scan(layer, group)
        state = scan.initial_state()
        reverse = [False, True][:nb_directions] * nb_targets
        for start, stop in spans:
            places = [(start, stop), (nb_frames - stop, nb_frames - start)][:nb_directions]
            arrivals = [inputs.read(targets, *place) for place in places]
            gates = stack.gates(layer, group, everything, arrivals)
            step = stack.device.xp.empty((*gates.shape[:2], config.lstm_hidden_size), np.float32)
            scan.run(gates, state, step, reverse)
            step = step.reshape(nb_targets, nb_directions, stop - start, -1)
            for direction, place in enumerate(places):
                with outputs.writing(everything, *place, part=direction) as out:
                    out[...] = step[:, direction]
            if tick is not None:
                tick((stop - start) / (nb_frames * config.nb_layers))
        spare = inputs if layer else None
        inputs, targets = outputs, everything
    for start, stop in spans:
        with encoded.writing(group, start, stop) as out:
            stack.combine(
                group,
                encoded.read(group, start, stop),
                inputs.read(everything, start, stop),
                out,
            )
