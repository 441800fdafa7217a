"""gateway audit."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gateway.commands.jobs import find_job
from gateway.commands.opening import FAILED, complain, with_store_to_look
from gateway.intake.views import view_of_act
from gateway.jobs.store import Store
from gateway.jobs.store.acts import ActFilter


def list_acts(
    config: Path | None,
    who: Sequence[str],
    what: Sequence[str],
    job: str | None,
    since: datetime | None,
    limit: int,
    as_json: bool,
) -> int:
    async def work(store: Store) -> int:
        job_id = None if job is None else await find_job(store, job)
        if job is not None and job_id is None:
            return FAILED
        wanted = ActFilter(who=who, what=what, job_id=job_id, since=since)
        acts = [view_of_act(act) for act in await store.find_acts(wanted, limit=limit)]
        if as_json:
            print(json.dumps([act.model_dump(mode="json") for act in acts]))
            return 0
        wide = not os.isatty(1)
        table = Table(box=None, pad_edge=False)
        for title in ("when", "who", "what", "job"):
            table.add_column(title, no_wrap=title in ("when", "job"), overflow="fold")
        for act in acts:
            told = "".join(f", {name} {value}" for name, value in act.detail.items())
            shown = "" if act.job_id is None else str(act.job_id) if wide else str(act.job_id)[:8]
            table.add_row(f"{act.at.astimezone():%F %T}", Text(act.who), Text(f"{act.what}{told}"), shown)
        Console(width=200 if wide else None).print(table)
        if not acts:
            complain("nobody did anything that matches")
        return 0

    return with_store_to_look(config, "to tell who did what", work)
