"""gateway simulate PEER --help, without a load of what the peers themselves need."""

from __future__ import annotations

from gateway.simulate.guides import MILVUE

_GUIDES = {"milvue": MILVUE}


def describe(peer: str) -> str:
    """What is particular to it, above what the command says of all."""
    guide = _GUIDES.get(peer)
    return "" if guide is None else f"{guide}\n"
