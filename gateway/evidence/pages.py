"""Documents of words alone: what is claimed of IHE, how the gateway is protected, answers for an MDS2."""

from __future__ import annotations

from gateway import __version__
from gateway.evidence.page import write_page


def write_ihe() -> str:
    return write_page("ihe.md", version=__version__)


def write_security() -> str:
    return write_page("security.md", version=__version__)


def write_mds2() -> str:
    return write_page("mds2.md", version=__version__)
