"""What those who call a peer ask before, and tell afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Protocol
from uuid import UUID

from gateway.contract import Failure, Unreachable


class Barred(Unreachable):
    """The peer is known to be away, or is paused: nothing was tried."""


_at_work_on: ContextVar[UUID | None] = ContextVar("at_work_on", default=None)


@contextmanager
def working_on(job_id: UUID) -> Iterator[None]:
    """Whatever is called meanwhile is called for this job, however deep the call: the one that tries a peer
    for all must not wait for itself."""
    before = _at_work_on.set(job_id)
    try:
        yield
    finally:
        _at_work_on.reset(before)


def worked_on() -> UUID | None:
    return _at_work_on.get()


class Gate(Protocol):
    async def require(self, peer: str) -> None:
        """Raises Barred."""
        ...

    def calling(self, *peers: str) -> AbstractContextManager[None]:
        """Around a call: one that waits in silence is no reason to wait for its end."""
        ...

    async def met(self, failure: Failure, job_id: UUID | None = None, *, canary: bool = False) -> bool:
        """Whether the job has to wait for the peer whose doing the failure is."""
        ...

    async def heard(self, *peers: str, job_id: UUID | None = None) -> None:
        """They answered as they should."""
        ...


class Unguarded:
    """For those who call once and go."""

    async def require(self, peer: str) -> None:
        pass

    def calling(self, *peers: str) -> AbstractContextManager[None]:  # noqa: ARG002
        return nullcontext()

    async def met(
        self,
        failure: Failure,  # noqa: ARG002
        job_id: UUID | None = None,  # noqa: ARG002
        *,
        canary: bool = False,  # noqa: ARG002
    ) -> bool:
        return False

    async def heard(self, *peers: str, job_id: UUID | None = None) -> None:
        pass
