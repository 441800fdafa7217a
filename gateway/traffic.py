"""How many bytes went to each peer and came from it, since this process began. Peers are named as the
configuration names them (`archives.vna`); whoever it doesn't name is `others`."""

from __future__ import annotations

import threading
from collections import Counter

OTHERS = "others"

received: Counter[str] = Counter()
sent: Counter[str] = Counter()
_counting = threading.Lock()  # DIMSE counts in threads of its own


def count(table: Counter[str], peer: str, octets: int) -> None:
    with _counting:
        table[peer] += octets


def key_of(name: str) -> str:
    """`archive vna`, as sentences have it, is `archives.vna`; a vendor that doesn't know its own name is one
    of `vendors`."""
    kind, _, rest = name.partition(" ")
    return f"{kind}s.{rest}" if rest else f"{kind}s"
