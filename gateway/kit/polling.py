"""How a vendor is asked again: slower and slower, and what it is that hasn't come yet."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gateway.contract import Finished, Pending, Ticket
from gateway.kit.options import AwaitedOptions, PolledOptions


def pending(
    ticket: Ticket,
    options: PolledOptions,
    note: str,
    *,
    after: float | None = None,
    state: Mapping[str, Any] | None = None,
) -> Pending:
    """`after`: where it is known. `state`: what the ticket has to remember from now on."""
    known = ticket.state if state is None else state
    polls = known.get("polls")
    polls = polls if isinstance(polls, int) else 0
    pause = min(options.first_poll * 1.5 ** min(polls, 64), options.slowest_poll)
    renewed = replace(ticket, state={**known, "polls": polls + 1})
    return Pending(pause if after is None else max(after, 0.05), note, ticket=renewed)


def nothing_yet(ticket: Ticket, options: AwaitedOptions) -> Pending | Finished:
    """By a vendor that returns nothing when it finds nothing."""
    since = ticket.state.get("since")
    since = since if isinstance(since, float | int) else time.time()
    waited = time.time() - since
    if options.empty_after is not None and waited >= options.empty_after:
        return Finished(f"The vendor returned nothing within {waited:.0f} s.", empty=True)
    state = {**ticket.state, "since": since}
    return pending(ticket, options, "The vendor has the study; nothing has come back yet.", state=state)


def more_to_come(
    ticket: Ticket, options: AwaitedOptions, count: int, still: float, state: Mapping[str, Any] | None = None
) -> Pending | None:
    """None once nothing has come for long enough. `still`: seconds since the last one came."""
    if still >= options.quiet:
        return None
    note = f"{count} results came; waiting for more."
    return pending(ticket, options, note, after=options.quiet - still, state=state)
