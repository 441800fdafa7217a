"""A result that an app gives in its answer to an invocation, and doesn't store itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gateway.contract import NeedsHuman, Order, Retryable
from gateway.sectra.results import NewResult
from gateway.sectra.wire import BadMessage, read

_LARGEST = 3 * 2**20  # as of one that it would store
_OF_A_RESULT = ("displayResult", "data")
_ANOTHERS = "Don't show it: find out at the vendor whose it is, then cancel or retry the job."


def read_answer(answer: object, order: Order) -> Mapping[str, Any] | None:
    """None for an answer that is no result, and for one that says where it is stored."""
    if order.arrived or not isinstance(answer, dict) or "id" in answer:
        return None
    if not any(name in answer for name in _OF_A_RESULT):
        return None
    if answer.get("slideId") not in (None, order.slide_id):
        raise NeedsHuman("the vendor answered with a result for another slide", _ANOTHERS)
    try:
        result = read(NewResult, {**answer, "slideId": order.slide_id}).to_wire()
    except BadMessage:
        raise Retryable(
            "the vendor answered with a result that isn't of the shape of one",
            "If this goes on, tell the vendor.",
            uncertain=True,
        ) from None
    if len(json.dumps(result)) > _LARGEST:
        raise NeedsHuman(
            "the vendor answered with a result that is larger than one may be",
            "Have the vendor make less of it; then retry the job.",
        )
    return result
