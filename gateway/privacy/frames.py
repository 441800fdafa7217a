"""Packed frames, whose makers write into them what they like besides the picture: comments and tags."""

from __future__ import annotations

from typing import Final

_JPEG, _JPEG_2000 = b"\xff\xd8", b"\xff\x4f"
_COMMENT, _COMMENT_2000 = 0xFFFE, 0xFF64
_SCAN, _TILE_PART, _DATA = 0xFFDA, 0xFF90, 0xFF93
# Of those that applications write: JFIF, colour profiles, colour transforms. Tags of cameras are another.
_SHAPING: Final = frozenset((0xFFE0, 0xFFE2, 0xFFE8, 0xFFEE))
_WITHOUT_LENGTH: Final = frozenset((0xFF01, *range(0xFFD0, 0xFFD8)))
_TILE_PART_LENGTH: Final = 12  # of its own head, marker and all


class Frame:
    """However it is cut. What is blanked stays as long as it was; pixels aren't looked at."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """A fragment, which may be a frame."""
        self._head = bytearray()
        self._wanted = 2
        self._left = 0
        self._blank = False
        self._kind = b""
        self._since_tile = 0
        self._in_tile = 0
        self._over = False

    def blanked(self, data: memoryview) -> memoryview:
        """The next bytes of it: the very same, if there is nothing to blank."""
        changed: bytearray | None = None
        at, end = 0, len(data)
        while at < end and not self._over:
            step = min(self._left or self._wanted - len(self._head), end - at)
            self._since_tile += step
            if self._left:
                if self._blank:
                    changed = changed if changed is not None else bytearray(data)
                    changed[at : at + step] = b" " * step
                self._left -= step
            else:
                self._head += data[at : at + step]
                if len(self._head) == self._wanted:
                    self._read_head()
            at += step
        return data if changed is None else memoryview(bytes(changed))

    def _read_head(self) -> None:
        marker = int.from_bytes(self._head[:2], "big")
        if not self._kind:
            self._kind = bytes(self._head)
            self._over = self._kind not in (_JPEG, _JPEG_2000)
            self._expect_marker()
        elif marker == 0xFFFF or (marker < 0xFF00 and self._kind == _JPEG):  # padding, which decoders skip
            del self._head[0]
        elif marker < 0xFF00 or marker == _SCAN:
            self._over = True
        elif marker == _DATA and self._kind == _JPEG_2000:
            self._over = self._in_tile < self._since_tile
            self._pass(self._in_tile - self._since_tile)
        elif marker in _WITHOUT_LENGTH:
            self._expect_marker()
        elif self._wanted == 2:
            self._wanted = 4
        else:
            self._read_segment(marker)

    def _read_segment(self, marker: int) -> None:
        length = int.from_bytes(self._head[2:4], "big") - 2
        if marker == _TILE_PART and self._kind == _JPEG_2000:
            if self._wanted < _TILE_PART_LENGTH:
                self._wanted = _TILE_PART_LENGTH
                return
            self._in_tile = int.from_bytes(self._head[6:10], "big")
            self._since_tile = _TILE_PART_LENGTH
            self._expect_marker()
            return
        if self._kind == _JPEG:
            tags = 0xFFE0 <= marker <= 0xFFEF and marker not in _SHAPING
            self._pass(length, blank=tags or marker == _COMMENT)
        elif marker == _COMMENT_2000 and self._wanted == 4:
            self._wanted = 6  # what kind of comment it is
        else:
            self._pass(length - self._wanted + 4, blank=marker == _COMMENT_2000)

    def _pass(self, length: int, *, blank: bool = False) -> None:
        self._left, self._blank = max(0, length), blank
        self._expect_marker()

    def _expect_marker(self) -> None:
        self._head.clear()
        self._wanted = 2
