"""Names, arguments and defaults that code for openunmix relies on."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

import umx_np

pytestmark = pytest.mark.parity


def parameters(function):
    return [
        (p.name, p.default)
        for p in inspect.signature(function).parameters.values()
        if p.kind is p.POSITIONAL_OR_KEYWORD
    ]


def test_arguments_and_defaults(openunmix):
    filtering, model = openunmix.filtering, openunmix.model
    for ours, theirs in (
        (umx_np.Separator, model.Separator),
        (umx_np.OpenUnmix, model.OpenUnmix),
        (umx_np.expectation_maximization, filtering.expectation_maximization),
    ):
        # Ours have more, by name only.
        assert parameters(ours) == parameters(theirs)
    found, wanted = parameters(umx_np.wiener), parameters(filtering.wiener)
    assert [name for name, _ in found] == [name for name, _ in wanted]


def test_attributes_of_a_separator(openunmix):
    model = openunmix.model
    options = {"niter": 2, "softmask": True, "residual": True, "wiener_win_len": 50}
    ours = umx_np.Separator({"v": umx_np.OpenUnmix(nb_bins=2049, hidden_size=4)}, **options)
    theirs = model.Separator({"v": model.OpenUnmix(nb_bins=2049, hidden_size=4)}, **options)
    for name in (*options, "nb_targets"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert float(ours.sample_rate) == float(theirs.sample_rate)
    assert list(ours.target_models) == list(theirs.target_models)


def test_loading_some_weights(openunmix):
    torch, model = openunmix.torch, openunmix.model
    ours = umx_np.OpenUnmix(nb_bins=33, hidden_size=8, max_bin=20)
    theirs = model.OpenUnmix(nb_bins=33, hidden_size=8, max_bin=20)
    state = {name: value.numpy() for name, value in theirs.state_dict().items()}
    part = {"fc1.weight": state["fc1.weight"], "mine": np.zeros(3, np.float32)}
    found = ours.load_state_dict(part, strict=False)
    tensors = {name: torch.as_tensor(value) for name, value in part.items()}
    wanted = theirs.load_state_dict(tensors, strict=False)
    assert sorted(found.missing_keys) == sorted(wanted.missing_keys)
    assert found.unexpected_keys == wanted.unexpected_keys


def test_batches_of_the_em_change_nothing(openunmix):
    torch, filtering = openunmix.torch, openunmix.filtering
    rng = np.random.default_rng(0)
    y, x = rng.standard_normal((30, 9, 2, 2, 3)), rng.standard_normal((30, 9, 2, 2))
    ours = umx_np.expectation_maximization(y, x, 2, 1e-10, 7)
    theirs = filtering.expectation_maximization(torch.as_tensor(y), torch.as_tensor(x), 2, 1e-10, 7)
    np.testing.assert_allclose(ours[0], theirs[0].numpy(), rtol=1e-6, atol=1e-9)
