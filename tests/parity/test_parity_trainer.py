"""What the trainer does and writes, against torch and openunmix."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.asserts import relative_l2, snr_db
from training import real_run
from training.conftest import RATE, TINY, Tones

import umx_np
from umx_np.data import Loader
from umx_np.training import TrainConfig, Trainer
from umx_np.weights import load_folder

pytestmark = pytest.mark.parity

NB_STEPS = 12


def make_trainer(folder, device="reference", **settings):
    values = {**TINY, "target": "tone", "output": folder, "device": device, "lr": 0.01}
    return Trainer(TrainConfig(**{**values, **settings}), Tones(), Tones(2))


def train_upstream(upstream, trainer, state):
    """Epochs as in openunmix's scripts/train.py, on the same batches; losses and final weights."""
    torch, config = upstream.torch, trainer.config
    stft, _ = upstream.transforms.make_filterbanks(
        n_fft=config.n_fft, n_hop=config.n_hop, sample_rate=RATE
    )
    encoder = torch.nn.Sequential(stft, upstream.model.ComplexNorm(mono=config.nb_channels == 1))
    network = upstream.model.OpenUnmix(
        nb_bins=config.n_fft // 2 + 1,
        nb_channels=config.nb_channels,
        hidden_size=config.hidden_size,
        max_bin=trainer.model_config.max_bin,
    )
    network.load_state_dict(upstream.state_dict(state))
    network.lstm.dropout = 0.0
    make = torch.optim.Adam if config.optimizer == "adam" else torch.optim.SGD
    options = {"momentum": config.momentum} if config.optimizer == "sgd" else {}
    optimizer = make(
        network.parameters(), lr=config.lr, weight_decay=config.weight_decay, **options
    )
    loader = Loader(Tones(), config.batch_size, seed=config.seed, shuffle=True)
    network.train()
    losses = []
    for epoch in range(config.epochs):
        for x, y in loader.epoch(epoch):
            optimizer.zero_grad()
            estimate = network(encoder(torch.from_numpy(x)))
            loss = torch.nn.functional.mse_loss(estimate, encoder(torch.from_numpy(y)))
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses, {name: tensor.numpy() for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize("device", ["reference", "cpu"])
@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "adam", "lr": 0.001, "weight_decay": 1e-5},
        {"optimizer": "sgd", "lr": 0.001, "momentum": 0.9},
        {"optimizer": "adam", "lr": 0.001, "nb_channels": 1},
    ],
    ids=str,
)
def test_steps_follow_torch(openunmix, tmp_path, device, settings):
    """Twelve steps of the whole trainer: data, STFT, network, loss, optimiser."""
    if device == "cpu":
        pytest.importorskip("numba")
    trainer = make_trainer(tmp_path, device, epochs=4, **settings)
    prepare, train_batch = trainer._prepare, trainer._train_batch
    losses, initial = [], {}

    def without_dropout(start):
        (weights,) = start.bundle.targets.values()
        initial.update({name: np.array(array) for name, array in weights.state.items()})
        prepare(start)
        trainer.network.dropout = 0.0

    def remember(x, y):
        losses.append(train_batch(x, y))
        return losses[-1]

    trainer._prepare, trainer._train_batch = without_dropout, remember
    trainer.fit()
    desired, state = train_upstream(openunmix, trainer, initial)
    assert len(losses) == len(desired) == NB_STEPS
    np.testing.assert_allclose(losses, desired, rtol=1e-4)
    for name, array in trainer.network.state_dict().items():
        if "running" in name:
            assert relative_l2(array, state[name]) < 1e-4, name
        elif name.endswith("tracked"):
            assert array == state[name] == NB_STEPS


@pytest.mark.parametrize("settings", [{}, {"nb_channels": 1}, {"hidden_size": 16}], ids=str)
def test_openunmix_loads_and_separates_alike(openunmix, tmp_path, settings):
    make_trainer(tmp_path, epochs=3, **settings).fit()
    separator = openunmix.utils.load_separator(
        str(tmp_path), targets=["tone"], niter=1, residual=True
    )
    separator.freeze()
    nb_channels = settings.get("nb_channels", 2)
    audio, _ = Tones(nb_timesteps=RATE, nb_channels=nb_channels).sample(
        3, np.random.default_rng(11)
    )
    with openunmix.precision("float32"):
        desired = separator(openunmix.torch.from_numpy(audio[None])).numpy()
    ours = umx_np.Separator.from_bundle(load_folder(tmp_path), niter=1, residual=True)
    assert snr_db(ours(audio[None]), desired) > 80.0


def test_openunmix_loads_several_targets(openunmix, tmp_path):
    for target in ("tone", "noise"):
        make_trainer(tmp_path, epochs=1, target=target).fit()
    separator = openunmix.utils.load_separator(str(tmp_path), targets=["tone", "noise"])
    assert list(separator.target_models) == ["tone", "noise"]
    assert separator.sample_rate.item() == RATE


@pytest.mark.slow
def test_a_real_run(openunmix, tmp_path):
    """Trained on music here, loaded by openunmix, separated by both."""
    root, out = tmp_path / "tracks", tmp_path / "out"
    real_run.train(root, out)
    separator = openunmix.utils.load_separator(str(out), targets=["vocals"], niter=1, residual=True)
    separator.freeze()
    ours = umx_np.Separator.from_bundle(umx_np.load_model(out), niter=1, residual=True)
    for title in ("excerpt", "rendered"):
        mixture, vocals = real_run.read_mixture(root, title)
        with openunmix.precision("float64") as dtype:
            tensor = openunmix.torch.tensor(mixture[None], dtype=dtype)
            desired = separator.to(dtype)(tensor).numpy()
        actual = ours(mixture[None])
        agreement = snr_db(actual, desired)
        print(
            f"{title}: agreement {agreement:.0f} dB, vocals {snr_db(actual[0, 0], vocals):.1f} dB"
        )
        assert agreement > 80.0
