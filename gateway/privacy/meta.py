"""The file meta information, written anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gateway.dicom.part10 import Meta

_IMPLEMENTATION: Final = ("2.25.190716326735306281106155512364203915381", "IMAGING_GATEWAY")


def write_meta(meta: Meta, uid: Callable[[str], str | None], sop_class: str = "") -> bytes:
    """The preamble may be a file of its own, and what wrote and sent the object tells of a hospital. `uid`:
    which the instance's is from now on; None leaves it. `sop_class`: as the dataset says, if it does."""
    kind = sop_class or meta.values.get(0x00020002, "")
    told = meta.values.get(0x00020003, "")
    values: list[tuple[int, bytes, bytes]] = [
        (0x0001, b"OB", b"\0\1"),
        (0x0002, b"UI", kind.encode("ascii", "replace")),
        (0x0003, b"UI", (uid(told) or told).encode("ascii", "replace")),
        (0x0010, b"UI", meta.transfer_syntax.encode("ascii", "replace")),
        (0x0012, b"UI", _IMPLEMENTATION[0].encode()),
        (0x0013, b"SH", _IMPLEMENTATION[1].encode()),
    ]
    body = b"".join(_meta_element(number, vr, value) for number, vr, value in values)
    length = _meta_element(0x0000, b"UL", len(body).to_bytes(4, "little"))
    return bytes(128) + b"DICM" + length + body


def _meta_element(number: int, vr: bytes, value: bytes) -> bytes:
    value += (b" " if vr == b"SH" else b"\0") * (len(value) % 2)
    size = len(value).to_bytes(2, "little")
    if vr == b"OB":
        size = b"\0\0" + len(value).to_bytes(4, "little")
    return b"\2\0" + number.to_bytes(2, "little") + vr + size + value
