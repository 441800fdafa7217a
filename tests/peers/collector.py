"""An audit collector: Debian's rsyslog, which takes syslog over TLS and writes what comes into a file."""

from __future__ import annotations

import asyncio
import base64
import re
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lxml import etree

from tests.peers.certificates import Authority, Certified
from tests.peers.ports import free_port
from tests.programs import PATH

_SCHEMA = etree.RelaxNG(etree.parse(str(Path(__file__).with_name("audit_message.rng"))))
_LINE = re.compile(
    "<(?P<priority>\\d+)>1 (?P<at>\\S+) (?P<host>\\S+) gateway - DICOM\\+RFC3881 - \ufeff(?P<xml><.*)"
)


@dataclass(frozen=True)
class Heard:
    """A message, judged by the standard's schema."""

    priority: int
    root: Any

    @property
    def event(self) -> str:
        return str(self.root.find("EventIdentification/EventID").get("originalText"))

    @property
    def kind(self) -> str | None:
        found = self.root.find("EventIdentification/EventTypeCode")
        return None if found is None else str(found.get("originalText"))

    @property
    def outcome(self) -> str:
        return str(self.root.find("EventIdentification").get("EventOutcomeIndicator"))

    @property
    def action(self) -> str:
        return str(self.root.find("EventIdentification").get("EventActionCode"))

    @property
    def told(self) -> str:
        return str(self.root.findtext("EventIdentification/EventOutcomeDescription") or "")

    @property
    def users(self) -> list[str]:
        return [str(each.get("UserID")) for each in self.root.findall("ActiveParticipant")]

    def things(self, known_by: str) -> list[str]:
        return [
            str(each.get("ParticipantObjectID"))
            for each in self.root.findall("ParticipantObjectIdentification")
            if each.find("ParticipantObjectIDTypeCode").get("originalText") == known_by
        ]

    @property
    def record(self) -> tuple[str, int]:
        [key] = self.things("Record of the gateway")
        kind, _, number = key.partition("/")
        return kind, int(number)

    @property
    def job(self) -> str | None:
        for each in self.root.iter("ParticipantObjectDetail"):
            if each.get("type") == "job":
                return base64.b64decode(each.get("value")).decode()
        return None


def judged(text: bytes | str) -> Any:
    root = etree.fromstring(text if isinstance(text, bytes) else text.encode())
    assert _SCHEMA.validate(root), f"{_SCHEMA.error_log}\n{text!r}"
    return root


@dataclass
class Rsyslog:
    folder: Path
    authority: Authority
    certified: Certified
    asks_for_certificates: bool = False
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"tls://127.0.0.1:{self.port}"

    def configured(self) -> dict[str, str]:
        return {"syslog": self.url, "ca": str(self.authority.path)}

    @property
    def _file(self) -> Path:
        return self.folder / "audit.log"

    async def start(self) -> None:
        mode = "x509/certvalid" if self.asks_for_certificates else "anon"
        configuration = self.folder / "rsyslog.conf"
        configuration.write_text(f"""
            global(workDirectory="{self.folder}" maxMessageSize="256k" defaultNetstreamDriver="gtls"
                defaultNetstreamDriverCAFile="{self.authority.path}"
                defaultNetstreamDriverCertFile="{self.certified.certificate}"
                defaultNetstreamDriverKeyFile="{self.certified.key}")
            main_queue(queue.type="direct")
            module(load="imtcp" streamDriver.name="gtls" streamDriver.mode="1" streamDriver.authMode="{mode}")
            input(type="imtcp" port="{self.port}" address="127.0.0.1")
            template(name="whole" type="string" string="%rawmsg%\\n")
            action(type="omfile" file="{self._file}" template="whole")
        """)
        program = shutil.which("rsyslogd", path=PATH)
        assert program is not None, "rsyslog isn't installed"
        pid = self.folder / "rsyslog.pid"
        pid.unlink(missing_ok=True)
        command = (program, "-n", "-f", str(configuration), "-i", str(pid))
        self.process = subprocess.Popen(
            ("setpriv", "--pdeathsig", "KILL", "--", *command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        async with asyncio.timeout(60):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                except OSError:
                    assert self.process.poll() is None, "rsyslog didn't start"
                    await asyncio.sleep(0.05)
                else:
                    writer.close()
                    return

    async def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            await asyncio.to_thread(self.process.wait)
            self.process = None

    def lines(self) -> list[str]:
        return self._file.read_text().splitlines() if self._file.exists() else []

    def heard(self) -> list[Heard]:
        """All messages so far, in their order."""
        found = []
        for line in self.lines():
            told = _LINE.fullmatch(line)
            assert told is not None, line
            found.append(Heard(int(told["priority"]), judged(told["xml"])))
        return found


@asynccontextmanager
async def rsyslog(folder: Path, *, asks_for_certificates: bool = False) -> AsyncIterator[Rsyslog]:
    folder.mkdir(exist_ok=True)
    authority = Authority(folder)
    collector = Rsyslog(folder, authority, authority.certify("collector"), asks_for_certificates)
    await collector.start()
    try:
        yield collector
    finally:
        await collector.stop(signal.SIGKILL)
