"""For a gateway whose clock is libfaketime's: that one refuses the absolute sleep which Python asks for."""

from __future__ import annotations

import select
import time
from typing import SupportsIndex


def _sleep(seconds: SupportsIndex | float) -> None:
    select.select((), (), (), float(seconds))


time.sleep = _sleep
