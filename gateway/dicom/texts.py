"""What stands under a keyword of a dataset, as texts. Any value may be missing or empty."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # pydicom is loaded when the first study is met
    from pydicom.dataset import Dataset


def texts_of(item: Dataset, keyword: str) -> tuple[str, ...]:
    from pydicom.multival import MultiValue
    from pydicom.valuerep import PersonName

    value = item.get(keyword)
    if value in (None, ""):
        return ()
    values: list[Any] = []
    for each in value if isinstance(value, MultiValue | list) else [value]:
        values += str(each).split("=") if isinstance(each, PersonName) else [each]  # in up to three scripts
    texts = (str(each).strip(" \0") for each in values)
    return tuple(text for text in texts if text)


def text_of(item: Dataset, keyword: str) -> str | None:
    texts = texts_of(item, keyword)
    return texts[0] if texts else None
