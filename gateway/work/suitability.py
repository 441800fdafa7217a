"""Whether a slide is one that an application accepts. What Sectra doesn't tell can't be held against it."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.contract import Unsuitable
from gateway.sectra.messages import ImageInfo
from gateway.settings.sections import Accept


def check_slide(accept: Accept, info: ImageInfo) -> None:
    """Raise Unsuitable with what the slide has and what would be accepted."""
    staining = info.staining.display_name if info.staining else None
    priority = None if info.priority is None else str(info.priority)
    _check_one_of("staining", staining, accept.staining)
    _check_one_of("body part", info.body_part, accept.body_parts)
    _check_one_of("exam code", info.exam_code, accept.exam_codes)
    _check_one_of("priority", priority, accept.priorities)
    _check_range(
        "microns per pixel",
        info.microns_per_pixel,
        accept.min_microns_per_pixel,
        accept.max_microns_per_pixel,
    )
    if info.image_size is not None:
        pixels = info.image_size.width * info.image_size.height
        _check_range("number of pixels", pixels, None, accept.max_pixels)


def _check_one_of(what: str, value: str | None, accepted: Sequence[str]) -> None:
    if accepted and value is not None and value.casefold() not in {wanted.casefold() for wanted in accepted}:
        raise Unsuitable(
            f"the slide's {what} ({value}) isn't one this application accepts: {', '.join(accepted)}",
            "Choose another application, or widen accept of this one.",
        )


def _check_range(what: str, value: float | None, least: float | None, most: float | None) -> None:
    if value is None or ((least is None or value >= least) and (most is None or value <= most)):
        return
    bounds = [
        f"at least {least:g}" if least is not None else "",
        f"at most {most:g}" if most is not None else "",
    ]
    raise Unsuitable(
        f"the slide's {what} ({value:g}) isn't what this application accepts"
        f" ({' and '.join(filter(None, bounds))})",
        "Choose another application, or widen accept of this one.",
    )
