"""Which SOP classes are of instances that can be stored: the standard's, those of makers, and such as are
newer than what we know of the standard."""

from __future__ import annotations

from pydicom._uid_dict import UID_dictionary
from pynetdicom import sop_class as classes

_STORAGE = {str(uid): keyword for keyword, uid in classes._STORAGE_CLASSES.items()}
_ROOT = "1.2.840.10008.5.1.4.1.1."  # of most of them, and of some services


def is_storage(sop_class: str) -> bool:
    if sop_class in _STORAGE or sop_class not in UID_dictionary:
        return True
    name, keyword = UID_dictionary[sop_class][0], UID_dictionary[sop_class][4]
    if not sop_class.startswith(_ROOT) or (keyword and hasattr(classes, keyword)):  # of another service
        return False
    return "Storage" in name or not name  # retired ones have lost theirs


def storage_classes() -> dict[str, str]:
    """All that the standard has, retired ones too, with their names."""
    known = [uid for uid, entry in UID_dictionary.items() if entry[1] == "SOP Class" and is_storage(uid)]
    return {uid: _name_of(uid) for uid in sorted({*known, *_STORAGE}, key=_order)}


def _name_of(uid: str) -> str:
    name, _, _, retired, _ = UID_dictionary.get(uid, (_STORAGE.get(uid, ""), "", "", "", ""))
    return f"{name} (retired)".strip() if retired else name


def _order(uid: str) -> list[int]:
    return [int(number) for number in uid.split(".")]
