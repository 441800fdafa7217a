"""Durations, sizes and rates among an adapter's options, written as everywhere in the configuration."""

from __future__ import annotations

from gateway.settings.quantities import Duration, PositiveDuration, PositiveSize, Rate, Size

__all__ = ["Duration", "PositiveDuration", "PositiveSize", "Rate", "Size"]
