"""Where patients' data lie, encrypted how, who sees them and until when; and what leaves the house to whom.
It is of the configuration that was read: another hospital's says otherwise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import urlsplit

from gateway import __version__
from gateway.evidence.page import write_page
from gateway.jobs.tables import metadata
from gateway.settings.sections import (
    AdapterSettings,
    Application,
    CStoreDestination,
    DicomwebArchive,
    DimseArchive,
    Hl7Destination,
    S3Spool,
    SectraArchive,
    Settings,
    StowDestination,
)
from gateway.settings.shadows import shadows_of

_AS_THE_JOB = "as its job"
_NO_PATIENT = "nobody's data"
# By table: what of patients is in it, until when. A test wants every table here.
TABLES: Mapping[str, tuple[str, str]] = {
    "jobs": (
        "study, accession number, exam, slide, area, patient's id; the result; the caller's token",
        "`keep_days` after its end (below); then what, when and for which application stays",
    ),
    "job_events": (
        "what was done and when, with details such as UIDs",
        "details as the job's; the rest stays",
    ),
    "joining": ("an invocation that joins a job", "until it has joined, at the latest as its job"),
    "said": ("what peers answered, word by word", _AS_THE_JOB),
    "seals": ("hashes of histories", "stays"),
    "deliveries": (
        "where results went; a peer's reference and refusal",
        "the latter as the job; the rest stays",
    ),
    "instances": ("UIDs, sizes and digests of what was sent, and where its images lie in space", _AS_THE_JOB),
    "delivered": (
        "UIDs of the result objects that went into archives",
        "stays: they are never taken for images",
    ),
    "slide_results": ("which result stands on which slide", _AS_THE_JOB),
    "grants": (
        "a vendor's right to read a slide, and its last result",
        "slide, right and result as the job; counts stay",
    ),
    "rivals": ("a vendor's right by another call for the same job", _AS_THE_JOB),
    "vendor_calls": ("what a vendor asked of a slide, and how many bytes it got", "stays; no slide is named"),
    "audit": ("who did what to which job; no patient", "stays"),
    "circuits": (_NO_PATIENT, "stays"),
    "pauses": (_NO_PATIENT, "until unpaused"),
    "alerts": (_NO_PATIENT, "183 days after they were cleared"),
    "revisions": (_NO_PATIENT, "stays; secrets masked"),
    "pulls": (_NO_PATIENT, "an hour"),
    "uploads": (_NO_PATIENT, "until the vendor's next upload"),
    "ended_visits": (_NO_PATIENT, "until the visit would have ended"),
    "installation": (_NO_PATIENT, "stays"),
    "replicas": (_NO_PATIENT, "until it ends"),
    "rounds": (_NO_PATIENT, "stays"),
    "unprocessed": ("UIDs of studies that no job was about", "until one is, or the archive has it no more"),
    "canaries": (_NO_PATIENT, "stays"),
    "tallies": ("counts by day", "stays"),
    "verdicts": ("that users changed or deleted a result, by job", "stays"),
    "followed": (_NO_PATIENT, "stays"),
    "shadows": ("what a vendor that is tried and the one in use found, by job; no patient", "stays"),
    "department_keys": (
        "from which a department's pseudonyms follow",
        "stays: a patient keeps his pseudonym",
    ),
    "job_keys": ("the key that seals a job's pseudonyms", _AS_THE_JOB),
    "pseudonyms": ("what a pseudonym stands for", _AS_THE_JOB),
    "audit_cursor": (_NO_PATIENT, "stays"),
    "arrivals": ("UIDs of what was sent to the gateway and lies in its bucket", "until it is removed there"),
}


def write(settings: Settings) -> str:
    return write_page(
        "data.md",
        version=__version__,
        revision=settings.revision,
        folder=settings.data_dir,
        place_of_sent=_place_of_sent(settings),
        database=_database(settings),
        tables=[
            (f"`{name}`", told[0], _encrypted(name), told[1])
            for name, told in TABLES.items()
            if told[0] != _NO_PATIENT
        ],
        without=[name for name, told in TABLES.items() if told[0] == _NO_PATIENT],
        departments=[
            (department, name, f"{application.keep_days} days")
            for department, part in settings.departments.items()
            for name, application in part.applications.items()
        ],
        vendors=list(_to_vendors(settings)),
        results=list(_to_destinations(settings)),
        sources=list(_from_archives(settings)),
        rules=list(_by_rules(settings)),
        others=list(_to_others(settings)),
        people=list(_people(settings)),
        callers=_callers(settings),
        settings=settings,
    )


def encrypted_columns(table: str) -> list[str]:
    """All that is kept in bytes is encrypted; text and JSON lie as they are."""
    return [
        column.name
        for column in metadata.tables[table].columns
        if type(column.type).__name__ == "LargeBinary"
    ]


def _encrypted(table: str) -> str:
    columns = encrypted_columns(table)
    return ", ".join(f"`{column}`" for column in columns) or "no"


def _database(settings: Settings) -> str:
    if settings.database_url is None:
        return (
            f"the embedded PostgreSQL below `{settings.data_dir}`, at a socket that this user alone may open"
        )
    return f"PostgreSQL on {urlsplit(settings.database_url).hostname or 'this machine'}"


def _place_of_sent(settings: Settings) -> tuple[str, str]:
    """And how it is encrypted there."""
    spool = settings.spool
    if isinstance(spool, S3Spool):
        host, transport = _of_url(spool.url)
        return f"bucket `{spool.bucket}` at {host}, transport: {transport}", "as the bucket is"
    return f"`{settings.data_dir}/incoming`, `{settings.data_dir}/inbox`", "no: encrypt the disk"


def _to_vendors(settings: Settings) -> Iterator[Sequence[str]]:
    for department, part in settings.departments.items():
        for name, application in part.applications.items():
            shadows = [
                (" (shadow: its results go nowhere)", each) for _, each in shadows_of(settings, application)
            ]
            for shadow, each in [("", application), *shadows]:
                known = settings.adapters.get(each.adapter)
                what = _what(each, known)
                yield (
                    f"{department} / {name}",
                    f"{each.adapter}{shadow}",
                    *_place(known),
                    what,
                    _identity(each),
                )


def _what(application: Application, adapter: AdapterSettings | None) -> str:
    if adapter is not None and adapter.kind == "sectra-ia":
        return "tiles of the slide and what it asks of Sectra, while the job lives"
    chosen = application.choose.model_dump(exclude_defaults=True)
    return f"of the study, images with {', '.join(chosen)} as configured" if chosen else "the study's images"


def _identity(application: Application) -> str:
    if application.deidentify:
        return f"pseudonyms, by profile `{application.deidentify}`"
    return "the patient's own" + (", labels too" if application.allow_phi else "")


def _place(adapter: AdapterSettings | None) -> tuple[str, str]:
    options = {} if adapter is None else adapter.options
    url = urlsplit(str(options.get("url", "")))
    if url.hostname:
        return url.hostname, "TLS" if url.scheme == "https" else "**not encrypted**"
    secured = options.get("tls") or (adapter is not None and adapter.names_trust)
    return str(options.get("host", "?")), "TLS" if secured else "**not encrypted**"


def _to_destinations(settings: Settings) -> Iterator[Sequence[str]]:
    for name, server in settings.sectra.servers.items():
        for url in server.callback_urls:
            yield f"Sectra `{name}`", *_of_url(url), "results, states and reasons on the slide"
    for name, place in settings.destinations.items():
        if isinstance(place, Hl7Destination):
            yield (
                name,
                place.host,
                _tls(place.tls is not None),
                "HL7 ORU: patient's id, order, findings in words",
            )
        elif isinstance(place, StowDestination | CStoreDestination):
            archive = settings.archives.get(place.archive)
            yield name, *_of_archive(archive), "result objects, within the patient's study"


def _by_rules(settings: Settings) -> Iterator[Sequence[str]]:
    """What more follows from what was found (`when`)."""
    for department, part in settings.departments.items():
        for name, application in part.applications.items():
            for rule in application.when:
                rows = [(each, "results, as above") for each in rule.deliver]
                if rule.notify is not None:
                    rows.append(
                        (
                            _contact(settings, rule.notify),
                            "this rule, the application, the job's number; no patient",
                        )
                    )
                for whom, what in rows:
                    yield f"{department} / {name}", str(rule), whom, what


def _contact(settings: Settings, department: str) -> str:
    told = settings.departments.get(department)
    ways = ["the alerts' webhook"] if settings.alerts.webhook else []
    if settings.alerts.email and told is not None and "@" in told.contact:
        ways.append(f"e-mail to {told.contact}")
    return f"{department}, by {' and '.join(ways) or 'nothing that is configured'}"


def _from_archives(settings: Settings) -> Iterator[Sequence[str]]:
    for name, archive in settings.archives.items():
        yield (
            name,
            *_of_archive(archive),
            "study, accession number or patient's id, to find a study; then its images come",
        )


def _to_others(settings: Settings) -> Iterator[Sequence[str]]:
    if hook := settings.alerts.webhook:
        yield "alerts, webhook", *_of_url(hook.url), "causes, counts and numbers of jobs; no patient"
    if mail := settings.alerts.email:
        yield (
            "alerts, e-mail",
            mail.host,
            _tls(mail.tls in ("tls", "starttls")),
            "causes, counts and numbers of jobs; no patient",
        )
    if audit := settings.audit_log:
        yield "audit collector", audit.host, "TLS", "who did what with whose data: **patients' ids**, studies"
    if oidc := settings.console.oidc:
        yield "sign-in", *_of_url(oidc.issuer), "who signs in; no patient"
    if traces := settings.traces:
        yield "traces", *_of_url(str(traces.endpoint)), "durations; no patient"


def _people(settings: Settings) -> Iterator[Sequence[str]]:
    for token in settings.api_tokens:
        yield f"token `{token.name}`", token.role
    if oidc := settings.console.oidc:
        for role in ("viewer", "operator", "admin"):
            if groups := getattr(oidc.roles, role):
                yield f"{oidc.roles.claim}: {', '.join(groups)}", role


def _callers(settings: Settings) -> str:
    """Who may ask on /ia."""
    sectra, tls = settings.sectra, settings.listen.tls
    narrowed = [
        *(
            [f"the networks {', '.join(map(str, sectra.allowed_networks))}"]
            if sectra.allowed_networks
            else []
        ),
        *(["those who know its secret path"] if sectra.secret_path else []),
        *(["those who show a certificate"] if tls and tls.client_ca else []),
    ]
    return ", ".join(narrowed) or "**whoever reaches it**"


def _of_archive(archive: DicomwebArchive | DimseArchive | SectraArchive | None) -> tuple[str, str]:
    if isinstance(archive, DicomwebArchive):
        return _of_url(archive.url)
    if isinstance(archive, DimseArchive):
        return archive.host, _tls(archive.is_secured)
    return "Sectra", "as its servers"


def _of_url(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.hostname or "?", _tls(parts.scheme == "https")


def _tls(so: bool) -> str:
    return "TLS" if so else "**not encrypted**"
