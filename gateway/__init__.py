"""The imaging AI gateway. Begin reading in `gateway/run.py`."""

__version__ = "0.1.0"
