"""Documents of words: how the gateway is built and protected, what is claimed of IHE, answers for an MDS2."""

from __future__ import annotations

from gateway import __version__
from gateway.evidence.page import write_page
from gateway.jobs.states import NEXT


def write_architecture() -> str:
    states = [
        (f"`{state}`", ", ".join(f"`{each}`" for each in sorted(then)) or "nowhere")
        for state, then in NEXT.items()
    ]
    return write_page("architecture.md", version=__version__, states=states)


def write_ihe() -> str:
    return write_page("ihe.md", version=__version__)


def write_security() -> str:
    return write_page("security.md", version=__version__)


def write_mds2() -> str:
    return write_page("mds2.md", version=__version__)
