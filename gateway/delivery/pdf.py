"""A report's text as a PDF of A4 pages, for a RIS that takes documents where the vendor gives none.

Its letters are those of Windows-1252; others are set without their accents, or as question marks. The message
that carries the document has the whole text as well.
"""

from __future__ import annotations

import textwrap
import unicodedata

_WIDTH, _HEIGHT, _MARGIN = 595, 842, 57
_SIZE, _LEADING = 10, 14
_COLUMNS = 80  # of a typewriter's letters, 6 points wide
_LINES = (_HEIGHT - 2 * _MARGIN) // _LEADING


def set_in_pages(text: str) -> bytes:
    lines = [part for line in text.splitlines() or [""] for part in textwrap.wrap(line, _COLUMNS) or [""]]
    pages = [lines[at : at + _LINES] for at in range(0, len(lines), _LINES)]
    numbers = [4 + 2 * place for place in range(len(pages))]
    kids = " ".join(f"{number} 0 R" for number in numbers)
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Courier /Encoding /WinAnsiEncoding >>",
    ]
    for number, page in zip(numbers, pages, strict=True):
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {_WIDTH} {_HEIGHT}]"
            f" /Resources << /Font << /F 3 0 R >> >> /Contents {number + 1} 0 R >>".encode()
        )
        drawn = _draw(page)
        objects.append(b"<< /Length %d >>\nstream\n%b\nendstream" % (len(drawn), drawn))
    return _bind(objects)


def _draw(lines: list[str]) -> bytes:
    start = f"BT /F {_SIZE} Tf {_LEADING} TL {_MARGIN} {_HEIGHT - _MARGIN - _SIZE} Td".encode()
    shown = [b"(%b) Tj T*" % _letters(line) for line in lines]
    return b"\n".join((start, *shown, b"ET"))


def _letters(text: str) -> bytes:
    letters = bytearray()
    for letter in text:
        try:
            letters += letter.encode("cp1252")
        except UnicodeEncodeError:
            letters += unicodedata.normalize("NFKD", letter)[:1].encode("cp1252", "replace")
    return bytes(letters).replace(b"\\", b"\\\\").replace(b"(", b"\\(").replace(b")", b"\\)")


def _bind(objects: list[bytes]) -> bytes:
    document = bytearray(b"%PDF-1.4\n")
    places = []
    for number, content in enumerate(objects, 1):
        places.append(len(document))
        document += b"%d 0 obj\n%b\nendobj\n" % (number, content)
    table = len(document)
    document += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    document += b"".join(b"%010d 00000 n \n" % place for place in places)
    document += b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, table)
    return bytes(document)
