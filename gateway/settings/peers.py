"""Whom we work with: Sectra's servers, archives, destinations, vendors."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, SecretStr

from gateway.settings.addresses import HttpUrl, Link, Network, Page, SecretStep
from gateway.settings.parts import AeTitle, Name, Part, PeerPort, Port, Positive
from gateway.settings.quantities import Hours, Rate
from gateway.settings.transport import ByDimse, ByHttp, Listen, Tls, Trust
from gateway.settings.watching import Canary


class Kept(Part):
    """Who is asked when it is away, and where it says what to do then: shown beside it in the console."""

    owner: str = ""
    runbook: Page | None = None


class SectraServer(Kept, ByHttp):
    callback_urls: Annotated[list[HttpUrl], Field(min_length=1)]
    link: Link | None = None  # where people open in Sectra what a job is about
    username: str | None = None
    password: SecretStr | None = None


class Sectra(Part):
    acknowledge: Literal["stored", "temporary"] = "stored"
    servers: dict[Name, SectraServer] = {}
    open: bool = False  # /ia is for whoever reaches it, on purpose
    allowed_networks: list[Network] = []
    secret_path: SecretStep | None = None


class VendorsDoor(Part):
    """Where vendors call back, if that isn't where everybody else does."""

    listen: Listen | None = None
    public_url: HttpUrl | None = None


class _Archive(Kept):
    only_online: bool = False
    hours: Hours | None = None
    rate: Rate | None = None


class DicomwebArchive(_Archive, ByHttp):
    kind: Literal["dicomweb"]
    url: HttpUrl
    username: str | None = None
    password: SecretStr | None = None
    token: SecretStr | None = None


class DimseArchive(_Archive, ByDimse):
    kind: Literal["dimse"]
    host: str
    port: PeerPort
    ae_title: AeTitle
    retrieve: Literal["move", "get"] | None = None  # None: C-MOVE where we have a storage service


class SectraArchive(_Archive):
    """Gives a job the DICOM files of its own slide, from the server that the slide is on."""

    kind: Literal["sectra"]


Archive = Annotated[DicomwebArchive | DimseArchive | SectraArchive, Field(discriminator="kind")]


class KnownPeer(Part):
    ae_title: AeTitle
    host: str
    may: list[Literal["send", "deliver"]] = ["send"]  # studies; deliver: what we asked an archive for


class Dimse(Part):
    ae_title: AeTitle = "GATEWAY"
    host: str = "127.0.0.1"
    port: Port = 11112
    tls: Tls | None = None  # then nothing else is spoken there; a client_ca is asked of everybody
    peers: list[KnownPeer] = []


class _Keeping(Kept):
    archive: Name
    make: tuple[Literal["sr", "capture"], ...] = ("sr", "capture")  # of a vendor's findings


class StowDestination(_Keeping):
    kind: Literal["stow"]


class CStoreDestination(_Keeping):
    kind: Literal["c-store"]


class Hl7Destination(Kept):
    kind: Literal["hl7"]
    host: str
    port: PeerPort
    sending_application: str = "GATEWAY"
    sending_facility: str = ""
    receiving_application: str = ""
    receiving_facility: str = ""
    format: Literal["text", "pdf"] = "text"
    send_again: tuple[
        Literal["AE", "AR", "CE", "CR"], ...
    ] = ()  # refusals after which the same is sent again
    template: str | None = None  # the template itself: ${file:/etc/gateway/oru.txt} puts a file's text here
    tls: Trust | None = None


Destination = Annotated[
    StowDestination | CStoreDestination | Hl7Destination,
    Field(discriminator="kind"),
]


class AdapterSettings(Kept, ByHttp):
    """What the engine must know of a vendor; all other keys are the adapter's own options."""

    model_config = ConfigDict(extra="allow", frozen=True)

    kind: Name
    max_concurrent: Positive | None = None
    rate: Rate = Rate(100, 1.0)  # calls back, for each job
    hold_after: Positive = 5  # credentials refused so often, it is paused
    canary: Canary | None = None

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})
