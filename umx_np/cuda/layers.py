"""The recurrent layers of whole tracks on the card, in chunks of frames."""

from __future__ import annotations

from collections.abc import Callable

from .activations import Activations, spans_of
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
        directions = slice(nb_directions)
        state = stack.initial_state(nb_targets, nb_directions)
        for start, stop in spans:
            places = [(start, stop), (nb_frames - stop, nb_frames - start)][:nb_directions]
            gates = stack.gates(
                layer, group, directions, [inputs.read(targets, *place) for place in places]
            )
            h = stack.scan(layer, group, directions, gates, state)
            del gates  # before the next ones are made: they are the largest arrays
            for direction, place in enumerate(places):
                with outputs.writing(slice(None), *place, part=direction) as target:
                    target[...] = h[:, direction]
            if tick is not None:
                tick((stop - start) / (nb_frames * config.nb_layers))
        spare = inputs if layer else None
        inputs, targets = outputs, everything
    for start, stop in spans:
        with encoded.writing(group, start, stop) as out:
            stack.combine(
                group, encoded.read(group, start, stop), inputs.read(everything, start, stop), out
            )
