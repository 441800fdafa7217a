"""Jobs of vendors that work on the slide itself: no archive is asked and nothing is sent."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from gateway.contract import Adapter, Pending, Permanent, blaming
from gateway.delivery.slide_status import SlideStatus
from gateway.jobs.outcomes import Advance, Outcome, Wait
from gateway.jobs.records import CALLING, Job, Origin
from gateway.jobs.states import State
from gateway.jobs.store import Store
from gateway.sectra.passage import without_identity
from gateway.settings.sections import Application
from gateway.work.conversation import Conversation
from gateway.work.doubt import doubt
from gateway.work.orders import NoInstances, order_of, ticket_to_json

_HEARD_MEANWHILE = 1.0
_UNASKED = "unasked"  # beside the ticket: the vendor was told of an import, not called by a user


class SlideWay:
    def __init__(self, store: Store, conversation: Conversation, status: SlideStatus) -> None:
        self._store = store
        self._conversation = conversation
        self._status = status

    async def locate(self, job: Job, application: Application) -> Outcome:
        require_slide(job.slide_id)
        if job.origin is Origin.NOTIFICATION and job.promised is None:
            return Wait(
                after=application.settle,
                what=f"waiting {application.settle:g} s for the slide to be complete",
                values={"promised": 0},
            )
        return Advance(State.SUBMITTING, "the vendor reads the slide itself", {}, {"promised": 0})

    async def submit(self, job: Job, application: Application, adapter: Adapter) -> Outcome:
        callback = await self._conversation.callback(job, adapter, fresh=not job.submit_began)
        is_known = job.submit_began and job.state is State.SUBMITTING
        ticket = await adapter.find(order_of(job, callback=callback)) if is_known else None
        if ticket is None:
            wait = doubt(job, adapter) if is_known else None
            if wait is not None:
                return wait
            image_info = None
            if job.origin is Origin.NOTIFICATION:
                with blaming(f"sectra.{job.server}"):
                    info = await self._status.client_of(job).slide_info(job.slide_id or "")
                image_info = without_identity(info.to_wire())
            if job.submit_began:  # an earlier call may run yet
                callback = await self._conversation.another_callback(job)
                if callback is None:
                    return Wait(after=_HEARD_MEANWHILE)
            job = await self._store.keep(job, CALLING, submit_began=True, sent=0, doubted_until=None)
            order = order_of(job, callback=callback, image_info=image_info)
            ticket = await adapter.submit(order, NoInstances(order.study_instance_uid))
            if ticket.answered is not None:
                await self._store.remember_answer(job.id, ticket.answered)
        return Advance(
            State.ANALYSING,
            "the vendor has been called",
            {},
            {
                "ticket": ticket_to_json(ticket) | {_UNASKED: job.origin is Origin.NOTIFICATION},
                "sent": 0,
                "acknowledged": 0,
                "result_by": datetime.now(UTC) + timedelta(seconds=application.result_within),
            },
        )

    async def is_to_call_again(self, job: Job) -> bool:
        """A user has joined what an import began, which the vendor has left alone: it may ignore imports."""
        if job.origin is Origin.NOTIFICATION or not (job.ticket or {}).get(_UNASKED):
            return False
        heard = await self._store.heard_of(job.id)
        return heard is None or not heard.times_told

    async def tell_progress(self, job: Job, answer: Pending) -> None:
        if job.origin is not Origin.NOTIFICATION:  # nobody asked, and the vendor may ignore the slide
            await self._status.show_progress(job, answer.note or "analysing", answer.progress)


def require_slide(slide_id: str | None) -> None:
    if slide_id is None:
        raise Permanent(
            "this application's vendor works on slides in Sectra, and the job has none",
            "Ask for it on the slide, in Sectra.",
        )
