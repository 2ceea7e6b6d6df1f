"""Made-up models for tests, benchmarks and examples; no trained weights are needed for them."""

from __future__ import annotations

from .random_models import random_bundle, random_bundle_of, random_state

__all__ = ["random_bundle", "random_bundle_of", "random_state"]
