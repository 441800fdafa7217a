"""Whether two files show the same: python -m gateway.delivery.pixels_process SENT RETURNED. It ends with 0 if
they do, and is a process of its own since decoders of compressed pixels may crash.

A picture that was compressed with losses on the way is the same when it is nearly so throughout.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Final

import numpy as np
from pydicom.pixels.utils import iter_pixels

from gateway.dicom.reading import read_before

_MOST_LOST: Final = 0.03  # of the range of values, in the mean


def is_same(sent: Path, returned: Path) -> bool:
    told = read_before(returned, keywords=["BitsStored", "LossyImageCompression"])
    most = _MOST_LOST if told.get("LossyImageCompression") == "01" else 0
    for ours, theirs in zip(iter_pixels(sent), iter_pixels(returned), strict=True):
        if ours.shape != theirs.shape:
            return False
        lost = np.abs(ours.astype(np.float64) - theirs).mean()
        if lost > most * 2 ** int(told.BitsStored):
            return False
    return True


def main() -> None:
    warnings.simplefilter("ignore")
    sys.exit(not is_same(Path(sys.argv[1]), Path(sys.argv[2])))


if __name__ == "__main__":
    main()
