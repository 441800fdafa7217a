"""Memory for bytes on their way. Each read of a connection makes a buffer of 256 KiB, which is let go of as
soon as it was passed on. The C library gives such pages back to the kernel, which has to clear them for the
next read: a sixth of the processor's time of a study that passes through."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from typing import Final

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # mallopt(3)
_KEPT: Final = 8 << 20  # what the transfers under way let go of at once; what lies idle beyond that goes back
_FROM_KERNEL: Final = 4 << 20  # what is larger is asked for there, and given back there


def keep_buffers() -> None:
    """From now on this process uses its pages again. Other C libraries than GNU's go their own way."""
    with suppress(AttributeError):
        set_option = ctypes.CDLL(None).mallopt
        set_option(_MMAP_THRESHOLD, _FROM_KERNEL)
        set_option(_TRIM_THRESHOLD, _KEPT)
