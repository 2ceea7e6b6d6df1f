"""Made-up models for tests, benchmarks and examples, and a check of gradients written by hand."""

from __future__ import annotations

from .gradcheck import GradientError, gradcheck
from .random_models import random_bundle, random_bundle_of, random_state

__all__ = ["GradientError", "gradcheck", "random_bundle", "random_bundle_of", "random_state"]
