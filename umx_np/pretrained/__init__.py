"""Pretrained models: which there are, where they are kept, and how they get there."""

from __future__ import annotations

from .loading import DownloadProgress, bundled_folder, cache_dir, download, load_model
from .models import (
    ModelInfo,
    PublishedFile,
    default_model,
    default_notice,
    get_model_info,
    model_names,
    registry,
)

__all__ = [
    "DownloadProgress",
    "ModelInfo",
    "PublishedFile",
    "bundled_folder",
    "cache_dir",
    "default_model",
    "default_notice",
    "download",
    "get_model_info",
    "load_model",
    "model_names",
    "registry",
]
