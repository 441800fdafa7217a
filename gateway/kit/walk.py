"""The walk over a study on its way to a vendor."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

from gateway.contract import Instance, NeedsHuman, Retryable, Study


@asynccontextmanager
async def walking(study: Study, *, headings: bool = False) -> AsyncIterator[AsyncGenerator[Instance, None]]:
    """Instances of this study alone, and at least one; the archive's connection is let go when the walk is
    given up half-way."""
    instances = study.headings() if headings else study.instances()

    async def checked() -> AsyncGenerator[Instance, None]:
        count = 0
        async for instance in instances:
            count += 1
            if instance.header.study_instance_uid != study.study_instance_uid:
                raise NeedsHuman(
                    "the archive gave an instance of another study, so the study isn't sent",
                    "Look at the study in the archive, then resume the job.",
                )
            yield instance
        if count == 0:
            raise Retryable("the archive gave no instance of the study, so nothing was sent")

    try:
        async with aclosing(checked()) as walk:
            yield walk
    finally:
        close = getattr(instances, "aclose", None)
        if close is not None:
            await close()
