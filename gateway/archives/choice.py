"""Which instances of a study go to a vendor: those that were asked for, and never anybody's results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from gateway.archives.archive import InstanceRef
from gateway.settings.sections import Choose

# What is made of images, not an image: sent along, a vendor would get its own results back.
_RESULT_CLASSES = tuple(
    f"1.2.840.10008.5.1.4.1.1.{family}."
    for family in (
        7,  # Secondary Capture and its multi-frame kin
        11,  # presentation states
        66,  # segmentations, registrations
        88,  # structured reports, key objects
        104,  # encapsulated documents
    )
)


@dataclass(frozen=True, slots=True)
class Choice:
    instances: tuple[InstanceRef, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)  # how many, by why
    remarks: tuple[str, ...] = ()


def attributes_for(choose: Choose, makers: Collection[str]) -> tuple[str, ...]:
    """What must be known of each instance, by keyword."""
    wanted = dict.fromkeys(rule.keyword for rule in choose.tags)
    if choose.series:
        wanted["SeriesDescription"] = None
    if makers:
        wanted["Manufacturer"] = None
    return tuple(wanted)


def choose_instances(
    listed: Sequence[InstanceRef],
    choose: Choose,
    accepted: Collection[str],
    *,
    delivered: Collection[str] = (),
    made: Mapping[str, str] | None = None,
) -> Choice:
    """`delivered`: results that went through us before; `made`: those made by a vendor, and by which."""
    chosen = []
    left_out: Counter[str] = Counter()
    for instance in listed:
        maker = (made or {}).get(instance.sop_instance_uid)
        reason = (
            ("a result of ours" if instance.sop_instance_uid in delivered else None)
            or (f"made by {maker}" if maker else None)
            or _unwanted(instance, choose, accepted)
        )
        if reason is None:
            chosen.append(instance)
        else:
            left_out[reason] += 1
    untold = [
        keyword
        for keyword in attributes_for(choose, ())
        if listed and not any(keyword in instance.attributes for instance in listed)
    ]
    remarks = tuple(f"the archive tells no {keyword}, which a rule is about" for keyword in untold)
    return Choice(tuple(chosen), dict(left_out), remarks)


def made_by(listed: Iterable[InstanceRef], makers: Collection[str]) -> dict[str, str]:
    """Instances of a configured vendor, by the series' manufacturer. A firm may build scanners as well:
    what says of itself that it is an original image is one."""
    known = {maker.casefold(): maker for maker in makers}
    found = {}
    for instance in listed:
        for value in instance.attributes.get("Manufacturer", ()):
            maker = known.get(value.strip().casefold())
            if maker is not None and instance.attributes.get("ImageType", ("",))[0] != "ORIGINAL":
                found[instance.sop_instance_uid] = maker
    return found


def _unwanted(instance: InstanceRef, choose: Choose, accepted: Collection[str]) -> str | None:
    if instance.sop_class_uid not in choose.sop_classes:
        if f"{instance.sop_class_uid}.".startswith(_RESULT_CLASSES):
            return "a result"
        if choose.sop_classes:
            return "not in choose.sop_classes"
    if accepted and instance.modality not in accepted:
        return "not in accept.modalities"
    if choose.modalities and instance.modality not in choose.modalities:
        return "not in choose.modalities"
    if choose.series:
        descriptions = instance.attributes.get("SeriesDescription", ("",))
        if not any(pattern.search(text) for pattern in choose.series for text in descriptions):
            return "not in choose.series"
    for rule in choose.tags:
        if not rule.holds(_values_of(instance, rule.keyword)):
            return f"not {rule}"
    return None


def _values_of(instance: InstanceRef, keyword: str) -> Sequence[str]:
    if keyword == "Modality" and instance.modality:
        return (instance.modality,)
    if keyword == "SOPClassUID" and instance.sop_class_uid:
        return (instance.sop_class_uid,)
    return instance.attributes.get(keyword, ())
