"""umx_np beside PyTorch's Open-Unmix and other engines: same weights, same audio, same threads."""
