"""Draws one image: python -m gateway.delivery.picture_process FILE FRAME OUT. It says how large the image is,
or why it can't be drawn; a process of its own, since decoders of compressed pixels may crash."""

from __future__ import annotations

import ctypes
import json
import signal
import sys
import warnings
from pathlib import Path
from typing import Any, Final

from gateway.delivery.capture import NotDrawable, render
from gateway.dicom.reading import read_whole

_DIE_WITH_PARENT: Final = 1
_LARGEST: Final = 3000  # pixels of the longer side
_QUALITY: Final = 88


def draw(path: Path, frame: int | None, out: Path) -> dict[str, Any]:
    try:
        picture = render(read_whole(path), frame)
    except NotDrawable as why:
        return {"why": str(why)}
    columns, rows = picture.size
    picture.thumbnail((_LARGEST, _LARGEST))
    picture.save(out, "JPEG", quality=_QUALITY)
    return {"columns": columns, "rows": rows}


def main() -> None:
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    warnings.simplefilter("ignore")  # pydicom's quote values
    path, frame, out = sys.argv[1:]
    sys.stdout.write(json.dumps(draw(Path(path), int(frame) or None, Path(out))))


if __name__ == "__main__":
    main()
