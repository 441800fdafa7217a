"""Where what is sent to us lies until its job has ended: folders below data_dir, or a bucket."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any

from gateway.archives.archive import Archive
from gateway.archives.arrived import ArrivedStudies, Brought, BroughtFiles
from gateway.archives.bucket import Bucket
from gateway.archives.inbox import Inbox, SharedInbox
from gateway.archives.shared import BroughtObjects, SharedStudies
from gateway.archives.spool import Spool
from gateway.contract import Health
from gateway.intake.incoming import Incoming, Taking
from gateway.intake.shared_incoming import SharedIncoming
from gateway.jobs.records import Job
from gateway.jobs.store import Store
from gateway.settings.sections import S3Spool, Settings


@dataclass(frozen=True, slots=True)
class Keeping:
    """Of what isn't our own disk: `claim` it for one database, `check` whether it is well."""

    spool: Spool
    incoming: Taking
    studies_of: Callable[[str], Archive]
    brought_by: Callable[[Job], Brought]
    claim: Callable[[], Awaitable[None]] | None = None
    check: Callable[[], Coroutine[Any, Any, Health]] | None = None

    @property
    def inbox(self) -> Inbox:
        return self.spool.inbox


def lay_keeping(settings: Settings, store: Store) -> Keeping:
    if isinstance(settings.spool, S3Spool):
        return _lay_in_bucket(settings, store, Bucket(settings.spool, store.installation))
    return Keeping(
        Spool(settings.data_dir, settings.least_free),
        Incoming(settings, store),
        partial(ArrivedStudies, data_dir=settings.data_dir),
        partial(BroughtFiles, data_dir=settings.data_dir),
    )


def _lay_in_bucket(settings: Settings, store: Store, bucket: Bucket) -> Keeping:
    return Keeping(
        Spool(settings.data_dir, settings.least_free, SharedInbox(store, bucket)),
        SharedIncoming(settings, store, bucket),
        partial(SharedStudies, store=store, bucket=bucket),
        partial(BroughtObjects, store=store, bucket=bucket),
        bucket.claim,
        bucket.check,
    )
