"""Everything an adapter may see: what it is asked, what it answers, and how it fails.

An adapter speaks one vendor's protocol and nothing else. It is made anew for each step of a job from its
options, an HTTP session and a work folder of its own; what it must know at the next step it puts in the
`Ticket`. The session has the authority, the certificate and the proxy that the configuration names for this
vendor, and `gateway.dicom.certificate.trust_of` finds the same there for associations. The
adapter never sleeps to retry: it raises one of the three failures, and the engine decides.

    Failure
    ├── Retryable    the peer is busy or unreachable; the same call may succeed later
    │   ├── Unreachable  no connection came about: nothing was sent, and nobody else would get further
    │   └── Busy         the peer takes no more for now (429, a used-up quota): waiting costs no try
    ├── Permanent    the vendor refuses the study; trying again changes nothing
    │   └── Unsuitable  it isn't what the application accepts
    └── NeedsHuman   a person has to mend something first (two matches, a wrong patient)
        └── NotLetIn     the peer doesn't let us in (credentials)
            └── Untrusted    or we don't trust it (its certificate)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeAlias, runtime_checkable

from pydantic import BaseModel

if TYPE_CHECKING:  # whoever only looks at jobs speaks no HTTP
    import aiohttp
    from aiohttp import web


_MOST_SAID = 2000  # characters of each of a peer's words
_MOST_WORDS = 20


class Failure(Exception):
    """What went wrong in one sentence, and what to do about it: ours, and free of a patient's data, as is
    `detail`, which enters the job's history. What a peer said itself goes into `said`, and whatever else of a
    patient a person needs to decide: it is kept encrypted, for operators alone, and logged nowhere."""

    kind: ClassVar[str]
    passes: ClassVar[bool] = False  # with the trouble of the peer whose doing it is
    peer: str | None = None
    manner: str = ""  # how that peer is, in words that follow its name: "answers 503"

    def __init__(
        self,
        message: str,
        advice: str = "",
        *,
        detail: Mapping[str, Any] | None = None,
        said: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice
        self.detail = dict(detail or {})
        self.said = _bounded(said or {})

    def blame(self, peer: str) -> None:
        """It is this peer's trouble, as the configuration names it (`archives.vna`), unless somebody nearer
        has said whose. A job held for it goes on by itself once the peer is well again."""
        if self.passes and self.peer is None:
            self.peer = peer

    @property
    def sentences(self) -> str:
        """For a reader: the message, which begins small and ends without a full stop so that it can stand
        within another, and the advice."""
        return f"{self.message[:1].upper()}{self.message[1:]}. {self.advice}".strip()


class Retryable(Failure):
    """Time-outs, 429, 5xx. `after`: seconds the peer asked us to wait. `uncertain`: what was sent may have
    arrived all the same (the connection broke after bytes had left), so ask before sending again."""

    kind = "retryable"
    passes = True

    def __init__(
        self,
        message: str,
        advice: str = "",
        *,
        after: float | None = None,
        uncertain: bool = False,
        detail: Mapping[str, Any] | None = None,
        said: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message, advice, detail=detail, said=said)
        self.after = after
        self.uncertain = uncertain


class Unreachable(Retryable):
    """No connection came about, so nothing was sent. Whoever else calls there now will fare no better."""


class Busy(Retryable):
    """The peer takes no more for now: 429, a quota that is used up. It has done nothing of what was asked,
    and however long this lasts the job isn't held for it."""


class Permanent(Failure):
    """The job fails, and says so on the slide."""

    kind = "permanent"


class Unsuitable(Permanent):
    """What was asked about isn't what the application accepts. Where nobody asked, it is ignored."""


class NeedsHuman(Failure):
    """The job is held, with what to do."""

    kind = "needs_human"


class NotLetIn(NeedsHuman):
    """Refused credentials: somebody mends it for all jobs at once."""

    passes = True


class Untrusted(NotLetIn):
    """It is we who don't trust the peer: its certificate has expired, is another's, of nobody known."""


def _bounded(said: Mapping[str, Any]) -> dict[str, Any]:
    """Whoever is refused a million times must not fill the database with it."""

    def cut(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(name)[:100]: cut(inner) for name, inner in list(value.items())[:_MOST_WORDS]}
        return value if value is None or isinstance(value, int | float) else str(value)[:_MOST_SAID]

    return {str(name)[:100]: cut(value) for name, value in list(said.items())[:_MOST_WORDS]}


@contextmanager
def blaming(peer: str) -> Iterator[None]:
    try:
        yield
    except Failure as failure:
        failure.blame(peer)
        raise


@dataclass(frozen=True, slots=True)
class Header:
    """What an instance says of itself before its pixels."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    modality: str


class Instance(Protocol):
    """One DICOM instance on its way: its header is known, its bytes (Part 10) follow once, in order."""

    @property
    def header(self) -> Header: ...

    def chunks(self) -> AsyncIterator[bytes]: ...


class Study(Protocol):
    """The study as it comes from the archive. `instances()` may be walked again: it is then fetched again.

    The bytes of an instance are there until the next one is asked for; unread ones are skipped.
    """

    @property
    def study_instance_uid(self) -> str: ...

    @property
    def promised(self) -> int: ...

    def instances(self) -> AsyncIterator[Instance]: ...

    def headings(self) -> AsyncIterator[Instance]:
        """The same walk, of which nothing counts as sent: for whoever first says what will come."""
        ...

    async def acknowledge(self, sop_instance_uid: str) -> None:
        """The vendor has confirmed this instance apart from the others. After a crash, whoever goes on is
        given the study without it."""
        ...

    async def begin_anew(self) -> None:
        """The vendor wants more than what it hasn't confirmed: the next try is given the whole study."""
        ...


@dataclass(frozen=True, slots=True)
class Callback:
    """Where a vendor that calls back reaches us, and its right to do so: for one job, while that lives.

    `used`: whether a call with it has come in."""

    url: str
    token: str = field(repr=False)
    used: bool = False


@dataclass(frozen=True, slots=True)
class Order:
    """What a vendor is asked to do. Without a study of an archive, `study_instance_uid` may be empty.

    `arrived`: nobody asked, the slide has just been imported; `image_info` then describes it.
    `callback`: only for an adapter that `CallsBack`."""

    job_id: str
    application: str
    study_instance_uid: str
    accession_number: str | None = None
    accession_number_issuer: str | None = None  # as Sectra names it
    exam_id: str | None = None  # the study's Study ID, where both are known
    slide_id: str | None = None
    input: Mapping[str, Any] | None = None  # as Sectra sent it: {"type": "wholeSlide"} and so on
    context: Mapping[str, Any] = field(default_factory=dict)
    arrived: bool = False
    image_info: Mapping[str, Any] | None = None
    callback: Callback | None = None


@dataclass(frozen=True, slots=True)
class Ticket:
    """Proof that the vendor has the study, and all that is needed to ask for it again. Stored as JSON.

    `acknowledged`: the SOP instance UIDs that the vendor confirmed; None when it takes or refuses a study
    as a whole. `answered`: what one that calls back said when it was called; it isn't stored with the ticket
    but encrypted, and `Heard.answered` for as long as the vendor tells nothing else.
    """

    reference: str
    acknowledged: tuple[str, ...] | None = None
    state: Mapping[str, Any] = field(default_factory=dict)
    answered: Mapping[str, Any] | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Pending:
    """Not there yet: ask again in `after` seconds. A `ticket` given here replaces the stored one."""

    after: float
    note: str = ""
    progress: float | None = None  # 0 to 1
    ticket: Ticket | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing seen in one image. Points are in pixels of it (column, row), from its upper left; with
    a `frame` (from 1) they count in that frame alone."""

    label: str
    shape: Literal["box", "polygon", "polyline", "point", "none"]
    points: tuple[tuple[float, float], ...] = ()
    sop_instance_uid: str | None = None
    score: float | None = None
    measure: str | None = None
    frame: int | None = None


@dataclass(frozen=True, slots=True)
class SlideResult:
    """A result in Sectra's own words: `data` is the `result` of its result data (type and content)."""

    display_result: str
    display_properties: Mapping[str, str | int | float] = field(default_factory=dict)
    data: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """A report as a file in the work folder."""

    path: Path
    media_type: str
    title: str


@dataclass(frozen=True, slots=True)
class Finished:
    """All that the vendor made of the study. Files lie in the adapter's work folder.

    `empty`: the vendor looked and has nothing to return, which is a result, not a failure.
    `failed`: what failed beside it, a sentence each; the summary names it too. `analyses`: of a vendor that
    makes several, the `name` of each, and a `sentence` on what became of it that tells nothing of what was
    found. `awaited`: how many of what failed were only not there in time, and may come yet.
    `version`: of what analysed the study, as the vendor tells it.
    `placed`: the result that the vendor itself has put on the slide, in Sectra's words (at least its `id`;
    nothing at all if it left the slide alone). We then write nothing there.
    """

    summary: str
    empty: bool = False
    dicom: tuple[Path, ...] = ()
    findings: tuple[Finding, ...] = ()
    properties: Mapping[str, str | int | float] = field(default_factory=dict)
    slide: SlideResult | None = None
    placed: Mapping[str, Any] | None = None
    hl7: tuple[str, ...] = ()
    documents: tuple[Document, ...] = ()
    failed: tuple[str, ...] = ()
    version: str = ""
    analyses: tuple[Mapping[str, str], ...] = ()
    awaited: int = 0


@dataclass(frozen=True, slots=True)
class Modification:
    """A stored result as the user changed it (Sectra's `modify`), or its removal (`delete`)."""

    kind: Literal["modify", "delete"]
    result: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Health:
    """Whether a peer is reachable and lets us in, in one sentence."""

    ok: bool
    sentence: str
    certificate_expires: datetime | None = None
    failure: Failure | None = None  # which tells one that is away from one that refuses us

    @classmethod
    def ill(cls, failure: Failure) -> Health:
        return cls(False, failure.sentences, failure=failure)


class Adapter(Protocol):
    """One vendor. Remembers nothing between calls: what it must know again goes in the Ticket."""

    Options: ClassVar[type[BaseModel]]

    def __init__(self, options: Any, session: aiohttp.ClientSession, work: Path) -> None: ...

    async def submit(self, order: Order, study: Study) -> Ticket:
        """Send the study; returns once the vendor has acknowledged it."""
        ...

    async def find(self, order: Order) -> Ticket | None:
        """What arrived at the vendor, asked after a crash or a broken connection."""
        ...

    async def poll(self, ticket: Ticket) -> Pending | Finished: ...

    async def cancel(self, ticket: Ticket) -> None: ...

    async def check(self) -> Health: ...


# -- what an adapter may have besides -------------------------------------------------------------------


@runtime_checkable
class Hesitating(Protocol):
    """Its vendor may not know at once what has arrived."""

    @property
    def sure_after(self) -> float:
        """Seconds for which `find` is asked again, after a sending that broke off, before it is believed that
        something is missing."""
        ...


@runtime_checkable
class WorksOnSlide(Protocol):
    """Its vendor works on the slide in Sectra: no archive is asked, and `submit` gets no instances."""

    works_on_slide: ClassVar[Literal[True]]


@runtime_checkable
class Interactive(Protocol):
    """Its vendor takes a result that a user changed. For the others the stored one is answered."""

    async def modify(self, order: Order, change: Modification) -> Pending | Finished: ...


@runtime_checkable
class Flagging(Protocol):
    """Its vendor can be shown a study that is worth a look by its people."""

    async def flag(self, ticket: Ticket) -> None:
        """Of a study that it was sent before. Said again, nothing changes."""
        ...


@dataclass(frozen=True, slots=True)
class Heard:
    """What a vendor has done by calling us. Seconds are those since then; None for what never happened."""

    calls: int = 0
    since_invoked: float = 0.0
    since_read: float | None = None  # pixels or files of the slide: it is still at work
    since_told: float | None = None
    told: Mapping[str, Any] = field(default_factory=dict)  # what it said last
    times_told: int = 0

    @property
    def answered(self) -> Mapping[str, Any]:
        """What it said when it was called, where it has told nothing since."""
        return self.told if not self.times_told else {}


SILENCE = Heard()


class Call(Protocol):
    """One call of a vendor, for the job of its token; recorded, whatever becomes of it."""

    @property
    def order(self) -> Order: ...

    def refuse(self, status: int, sentence: str) -> web.StreamResponse: ...

    async def tell(self, said: Mapping[str, Any]) -> None:
        """Keep what the vendor said, for a `poll` that follows at once."""
        ...


Handler: TypeAlias = "Callable[[web.Request, Call], Awaitable[web.StreamResponse]]"


@dataclass(frozen=True, slots=True)
class Route:
    """A call that the vendor makes on us, below /adapters/{name}. Where the job is about a slide, the call
    is an `Errand` too (gateway.sectra)."""

    method: str
    path: str
    handle: Handler


@runtime_checkable
class CallsBack(Protocol):
    """Its vendor calls us, with the url and token of `Order.callback`, and `poll` hears what came of it."""

    def routes(self) -> Iterable[Route]: ...

    async def poll(self, ticket: Ticket, heard: Heard = SILENCE) -> Pending | Finished: ...


@runtime_checkable
class Gathering(Protocol):
    """Its vendor makes several things of a study, each in its own time."""

    async def gather(self, ticket: Ticket) -> Finished | None:
        """What is there when no more is waited for: what isn't stands among what `failed`, and is `awaited`.
        None: nothing is, so that the job goes on waiting, or is held. It is asked of a job that is done too,
        while something of it is awaited."""
        ...


@runtime_checkable
class Sharing(Protocol):
    """Its vendor's results are looked for where others put theirs too."""

    async def poll_among(
        self, ticket: Ticket, delivered: Callable[[Collection[str]], Awaitable[Collection[str]]]
    ) -> Pending | Finished:
        """In place of `poll`. `delivered`: which of these SOP instance UIDs are results of other vendors that
        we have put into archives ourselves."""
        ...


INBOX = "inbox"  # below the work folder, when `poll` is called


@dataclass(frozen=True, slots=True)
class Sender:
    """Who stores a vendor's results with us by C-STORE."""

    ae_title: str
    host: str


@runtime_checkable
class Returning(Protocol):
    """Its vendor stores results with us by C-STORE. Those that belong to the job lie in the inbox; whether
    they are of its study, and complete, is the adapter's to judge."""

    def senders(self) -> Iterable[Sender]: ...


@runtime_checkable
class Pushing(Protocol):
    """Its vendor stores results with us by STOW-RS, at /adapters/{name}/studies; else as `Returning`."""

    def push_token(self) -> str | None:
        """What the vendor shows there; None where it doesn't."""
        ...
