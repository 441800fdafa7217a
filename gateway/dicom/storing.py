"""What a server says of the instances that were stored there: the same numbers by C-STORE and STOW-RS."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from gateway.dicom.web import Item, number_of, text_of, values_of

DUPLICATE = 0x0111
NO_SUCH_CLASS, NO_SUCH_SYNTAX = 0x0122, 0xC122
_PASSING = (0x0110, 0x0213)  # and 0xA7xx: its own trouble, which may be over the next time
_WORDS = {
    0x0110: "it failed in processing it",
    DUPLICATE: "it has an instance of this UID already",
    0x0112: "it doesn't know it",
    0x0117: "the instance is invalid",
    0x0119: "its SOP class and its instance contradict each other",
    NO_SUCH_CLASS: "it doesn't take its SOP class",
    0x0124: "it doesn't let us store it",
    0xA700: "it is out of resources",
    0xA900: "it doesn't match the study or the SOP class it was sent as",
    0xC000: "it can't understand it",
    NO_SUCH_SYNTAX: "it doesn't take its transfer syntax",
    0xB000: "it changed some of its attributes",
    0xB006: "it left out some of its attributes",
    0xB007: "its attributes don't match its SOP class",
}


def describe(reason: int) -> str:
    for known in (reason, reason & 0xFF00, reason & 0xF000):
        if known in _WORDS:
            return f"{_WORDS[known]} ({reason:04X})"
    return f"reason {reason:04X}"


def describe_all(reasons: Iterable[int]) -> str:
    return "; ".join(sorted({describe(reason) for reason in reasons}))


def may_pass(reasons: Iterable[int]) -> bool:
    """Whether all of them may be over the next time."""
    return all(reason in _PASSING or reason & 0xFF00 == 0xA700 for reason in reasons)


def kinds_not_taken(reasons: Mapping[str, int], plainer: Collection[str] = ()) -> dict[str, int]:
    """What the server takes none of: others of the same results may be there all the same. Of what there is
    in a `plainer` form that may be meant by other words too."""
    return {
        uid: reason
        for uid, reason in reasons.items()
        if reason in (NO_SUCH_CLASS, NO_SUCH_SYNTAX) or (uid in plainer and _may_be_of_kind(reason))
    }


def _may_be_of_kind(reason: int) -> bool:
    return reason in (0x0117, 0x0119) or reason & 0xFF00 == 0xA900 or reason & 0xF000 == 0xC000


@dataclass(frozen=True, slots=True)
class StowOutcome:
    """By SOP instance UID. What the answer passed over in silence is `unconfirmed`."""

    stored: frozenset[str] = frozenset()
    warned: Mapping[str, int] = field(default_factory=dict)  # stored, with a WarningReason
    failed: Mapping[str, int] = field(default_factory=dict)  # not stored, with its FailureReason
    unconfirmed: frozenset[str] = frozenset()
    reference: str | None = None  # where the archive says that the study is

    @property
    def refused(self) -> dict[str, int]:
        """What failed for another reason than that it is there already."""
        return {uid: reason for uid, reason in self.failed.items() if reason != DUPLICATE}


def outcome_of(answer: Item, sent: Collection[str]) -> StowOutcome:
    warned: dict[str, int] = {}
    stored: set[str] = set()
    for told in values_of(answer, "00081199"):
        if isinstance(told, dict) and (uid := text_of(told, "00081155")):
            stored.add(uid)
            if (reason := number_of(told, "00081196")) is not None:
                warned[uid] = reason
    failed: dict[str, int] = {}
    for told in values_of(answer, "00081198"):
        # A failure that names no instance could be any of them: then all that isn't stored has failed.
        if isinstance(told, dict) and told:
            reason = number_of(told, "00081197") or 0
            uid = text_of(told, "00081155")
            failed |= {uid: reason} if uid else dict.fromkeys(set(sent) - stored, reason)
    return StowOutcome(
        stored=frozenset(stored - failed.keys()),
        warned=warned,
        failed=failed,
        unconfirmed=frozenset(set(sent) - stored - failed.keys()),
        reference=text_of(answer, "00081190"),
    )
