"""Those who hear of alerts, by webhook and e-mail; and which of these ways fails."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from hashlib import sha256
from typing import Literal, Protocol

import aiohttp
import structlog

from gateway.contract import Failure, Health, NotLetIn, Permanent, Retryable, Unreachable
from gateway.http import Peer, distrust, refusal, translated
from gateway.jobs.store.alerts import Cause
from gateway.settings.certificates import calling
from gateway.settings.sections import Email
from gateway.watch.metrics import channel_failing, count_channel_failure

log = structlog.get_logger(__name__)

_LIMIT = aiohttp.ClientTimeout(total=15, connect=5)
_MINUTE = 60
_ENCRYPTED = {  # at once, later
    "none": (False, False),
    "tls": (True, False),
    "starttls": (False, True),
    None: (False, None),
}
_FIRST_FAILURES = 2  # one may be a moment's
PEERS = "alerts"  # begins the cause of one that fails


@dataclass(frozen=True, slots=True)
class Message:
    """Of a job its number alone, so that no patient is named. `telling` is the same if it is told twice; each
    reminder has its own."""

    id: int
    kind: Literal["alert", "reminder", "all-clear"]
    cause: str
    sentence: str
    advice: str
    since: str
    cleared_at: str | None
    jobs_waiting: int
    departments: tuple[str, ...] = ()
    telling: str = ""


def how_long(since: datetime, until: datetime) -> str:
    seconds = (until - since).total_seconds()
    return "less than a minute" if seconds < _MINUTE else f"{round(seconds / _MINUTE)} min"


def name_telling(id: int, kind: str, reminded: datetime | None) -> str:
    """`reminded`: when it was told before, of a reminder."""
    after = "" if reminded is None else f"-after-{reminded.timestamp() * 1e6:.0f}"
    return f"alert-{id}-{kind}{after}"


class Channel(Protocol):
    async def tell(self, message: Message) -> None: ...

    async def check(self) -> Health: ...


class Webhook:
    def __init__(self, url: str, token: str | None, session: aiohttp.ClientSession) -> None:
        self._url = url
        self._session = session
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._peer = Peer(
            "the webhook of alerts", "Correct alerts.webhook.url.", "Correct alerts.webhook.token."
        )

    async def tell(self, message: Message) -> None:
        doing = "telling an alert"
        with translated(self._peer, doing, writes=True):
            async with self._session.post(
                self._url,
                json=asdict(message),
                headers=self._headers,
                timeout=_LIMIT,
                allow_redirects=False,
            ) as response:
                if not 200 <= response.status < 300:
                    raise refusal(self._peer, response, doing, writes=True)

    async def check(self) -> Health:
        """Whether anything answers there: only a message would show whether it is taken."""
        try:
            with translated(self._peer, "asking whether it answers"):
                async with self._session.head(self._url, timeout=_LIMIT, allow_redirects=False):
                    return Health(True, "the webhook of alerts answers")
        except Failure as failure:
            return Health(False, failure.sentences)


class Mail:
    """To IT, and to the contacts of the departments that it is about."""

    def __init__(self, email: Email, contacts: Mapping[str, str]) -> None:
        self._email = email
        self._contacts = contacts
        self._tls = calling("alerts.email", email)

    async def tell(self, message: Message) -> None:
        import aiosmtplib

        email = self._email
        at_once, later = _ENCRYPTED[email.tls]
        try:
            refused, _ = await aiosmtplib.send(
                self._letter(message),
                hostname=email.host,
                port=email.port,
                username=email.username,
                password=email.password.get_secret_value() if email.password else None,
                use_tls=at_once,
                start_tls=later,
                tls_context=self._tls,
                timeout=15,
            )
        except aiosmtplib.SMTPAuthenticationError:
            raise NotLetIn("the mail server refuses our name and password", _CREDENTIALS) from None
        except (
            aiosmtplib.SMTPConnectError,
            aiosmtplib.SMTPTimeoutError,
            aiosmtplib.SMTPServerDisconnected,
        ) as error:
            raise _unreachable(error) from None
        except aiosmtplib.SMTPRecipientsRefused:
            raise Permanent("the mail server takes none of the addresses", _ADDRESSES) from None
        except aiosmtplib.SMTPException:
            raise Retryable("the mail server doesn't take the alert", "Its own log says why.") from None
        except OSError as error:
            raise _unreachable(error) from None
        if refused:
            log.error(
                "the mail server takes not all of the addresses", refused=len(refused), advice=_ADDRESSES
            )

    async def check(self) -> Health:
        """Whether it greets us, encrypted as configured; nobody is written to."""
        import aiosmtplib

        at_once, later = _ENCRYPTED[self._email.tls]
        try:
            async with aiosmtplib.SMTP(
                hostname=self._email.host,
                port=self._email.port,
                use_tls=at_once,
                start_tls=later,
                tls_context=self._tls,
                timeout=15,
            ):
                return Health(True, "the mail server of alerts answers")
        except (aiosmtplib.SMTPException, OSError) as error:
            return Health(False, _unreachable(error).sentences)

    def _letter(self, message: Message) -> EmailMessage:
        contacts = [self._contacts.get(name, "") for name in message.departments]
        letter = EmailMessage()
        letter["From"] = self._email.from_
        letter["To"] = ", ".join(
            dict.fromkeys([*self._email.to, *(each for each in contacts if "@" in each)])
        )
        letter["Subject"] = f"[gateway] {message.kind}: {message.sentence}"
        letter["Date"] = datetime.now(UTC)
        domain = self._email.from_.rpartition("@")[2].strip("> ")
        # The same again, if it is told twice: whoever reads it sees that it is no other.
        letter["Message-ID"] = f"<{message.telling}@{domain}>"
        letter["Auto-Submitted"] = "auto-generated"
        sentence = f"{message.sentence[:1].upper()}{message.sentence[1:]}."
        letter.set_content(
            "\n\n".join(filter(None, (sentence, message.advice, f"Cause: {message.cause}"))) + "\n"
        )
        return letter


_CREDENTIALS = "Correct alerts.email.username and password."
_ADDRESSES = "Correct alerts.email.to and the contacts of the departments."


def stand_for(*hearers: object) -> str:
    """Whom a channel reaches, without naming him: an address may be a secret."""
    return sha256("\n".join(map(str, hearers)).encode()).hexdigest()[:16]


class Channels:
    """All of them. Each is told on its own: one that fails keeps nobody else from hearing."""

    def __init__(self, channels: Mapping[str, Channel], hearers: Mapping[str, str] | None = None) -> None:
        """`hearers`: what stands for those whom each reaches; another name, once it reaches others."""
        self._channels = channels
        self.hearers = {name: (hearers or {}).get(name, name) for name in channels}
        self._failed: dict[str, tuple[int, Failure]] = {}
        for name in channels:
            channel_failing(name, False)

    @property
    def checks(self) -> dict[str, Callable[[], Awaitable[Health]]]:
        return {f"{PEERS}.{name}": channel.check for name, channel in self._channels.items()}

    async def tell(
        self, message: Message, taken: Collection[str], note: Callable[[str], Awaitable[None]]
    ) -> Failure | None:
        """`taken`: by whom already, as `note` was told."""

        async def tell(name: str) -> Failure | None:
            try:
                await self._channels[name].tell(message)
            except Failure as failure:
                self._fail(name, failure)
                return failure
            self._failed.pop(name, None)
            channel_failing(name, False)
            await note(f"{message.kind}:{name}")
            return None

        untold = [name for name in self._channels if f"{message.kind}:{name}" not in taken]
        itself = message.cause.removeprefix(f"{PEERS}.")
        if message.kind != "all-clear" and message.cause != itself and itself in untold:
            untold.remove(itself)  # the others hear that this one fails
            await note(f"{message.kind}:{itself}")
        broken = await asyncio.gather(*map(tell, untold))
        return next((failure for failure in broken if failure is not None), None)

    def _fail(self, name: str, failure: Failure) -> None:
        self._failed[name] = (self._failed[name][0] if name in self._failed else 0) + 1, failure
        count_channel_failure(name)
        channel_failing(name, True)
        log.error("an alert can't be told", channel=name, error=failure.message, advice=failure.advice)

    async def standing(self) -> list[Cause]:
        return [
            Cause(
                f"{PEERS}.{name}",
                f"alerts can't be told by {name}: {failure.message}",
                failure.advice or f"The log says more (channel={name}).",
            )
            for name, (times, failure) in self._failed.items()
            if times >= _FIRST_FAILURES
        ]


def _unreachable(error: Exception) -> Failure:
    why, advice = (
        distrust(error)
        if "SSL" in type(error).__name__ or "SSL" in type(error.__cause__).__name__
        else ("", "")
    )
    if why:
        return NotLetIn(
            f"the mail server can't be trusted: {why}", advice or "Name its authority as alerts.email.ca."
        )
    return Unreachable(
        "the mail server can't be reached", "Check alerts.email.host and port, and the firewall in between."
    )
