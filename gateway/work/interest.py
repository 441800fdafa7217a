"""A job's study, pointed out to the vendor that has it, so that people there look at it."""

from __future__ import annotations

from pathlib import Path

from gateway.contract import Failure, Flagging, Permanent, blaming
from gateway.jobs.records import Job
from gateway.jobs.store import Store
from gateway.work.orders import ticket_from_json
from gateway.work.vendors import Vendors

_NONE = "Nothing was sent; tell them by other means which study you mean."
_WHAT = "interesting"  # in the audit


class Interest:
    def __init__(self, store: Store, vendors: Vendors) -> None:
        self._store = store
        self._vendors = vendors

    def is_taken_by(self, adapter: str) -> bool:
        return adapter in self._vendors.names and isinstance(self._vendors.make(adapter, Path()), Flagging)

    async def point_out(self, job: Job, who: str) -> None:
        """The audit has it, also that it failed. Saying it twice does no harm."""
        adapter = self._vendors.make(job.adapter, Path())
        if not isinstance(adapter, Flagging):
            raise Permanent(f"the vendor of adapters.{job.adapter} has no way to be shown a study", _NONE)
        if job.ticket is None:
            why = "it was purged" if job.purged_at is not None else "it wasn't sent"
            raise Permanent(
                f"the vendor of adapters.{job.adapter} can't be shown this study: {why}",
                "Choose a job that the vendor has, and whose keep_days aren't over.",
            )
        told = {"adapter": job.adapter}
        try:
            with blaming(f"adapters.{job.adapter}"):
                await adapter.flag(ticket_from_json(job.ticket))
        except Failure as failure:
            await self._store.note_in_audit(who, _WHAT, {**told, "failed": failure.message}, job.id)
            raise
        await self._store.note_in_audit(who, _WHAT, told, job.id)
