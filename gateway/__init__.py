"""The imaging AI gateway. Begin reading in `gateway/run.py`."""

from __future__ import annotations

__version__ = "0.1.0"
