"""Documents as they are read on a screen, on paper, and by those who compare two of them."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

_WIDTH = 118


def write_page(name: str, **facts: Any) -> str:
    """The text of that name, with the facts put into it."""
    environment = Environment(  # noqa: S701 - Markdown; what is put in comes from us and the configuration
        loader=PackageLoader("gateway.evidence", "texts"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["table"] = table
    return _lay_out(environment.get_template(name).render(**facts))


def _lay_out(text: str) -> str:
    """Paragraphs filled anew, since what is put into them has any length."""
    blocks = [block.strip() for block in text.split("\n\n")]
    return "\n\n".join(map(_fill, filter(None, blocks))) + "\n"


def _fill(block: str) -> str:
    if block.startswith(("|", "#", "-", "    ", "```")):
        return block
    return textwrap.fill(" ".join(block.split()), _WIDTH, break_long_words=False, break_on_hyphens=False)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [_row(heads), "|" + "---|" * len(heads), *map(_row, rows)]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
