"""What Open-Unmix's tests touch of torchaudio: the choice of what reads files."""


def set_audio_backend(name: str) -> None:
    """Accept any name."""
