"""gateway.yaml and the environment, read once into frozen, validated settings.

The only room that reads environment variables and configuration files. Precedence: `GATEWAY_…` variables,
then the file, then the defaults here. Every problem names its place: the line of the file, or the variable.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet
from pydantic import (
    BaseModel,
    PrivateAttr,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from gateway.configuration import ConfigurationTree, Unreadable, read_tree
from gateway.quantities import Size
from gateway.sections import (
    AdapterSettings,
    ApiToken,
    Application,
    Archive,
    CStoreDestination,
    Department,
    Destination,
    Dimse,
    DimseArchive,
    HttpUrl,
    Listen,
    Name,
    Sectra,
    StowDestination,
)


class Misconfigured(Exception):
    """The configuration can't be used: one sentence a problem, each with its place."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class Settings(BaseSettings):
    model_config = SettingsConfigDict(extra="forbid", frozen=True)

    public_url: HttpUrl | None = None
    listen: Listen = Listen()
    database_url: str | None = None
    migrate_on_start: bool = True
    data_dir: Path = Path("/var/lib/gateway")
    least_free: Size = 10**9  # of data_dir's disk: below it no new work begins
    secret_keys: list[SecretStr] = []
    api_tokens: list[ApiToken] = []
    sectra: Sectra = Sectra()
    archives: dict[Name, Archive] = {}
    dimse: Dimse | None = None
    destinations: dict[Name, Destination] = {}
    adapters: dict[Name, AdapterSettings] = {}
    departments: dict[Name, Department] = {}
    _place: Callable[[tuple[int | str, ...]], str] | None = PrivateAttr(None)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)

    @field_validator("database_url")
    @classmethod
    def _is_postgresql(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith("postgresql://"):
            raise ValueError("a database url begins with postgresql://")
        return value

    @field_validator("secret_keys")
    @classmethod
    def _are_fernet_keys(cls, keys: list[SecretStr]) -> list[SecretStr]:
        for place, key in enumerate(keys, 1):
            try:
                Fernet(key.get_secret_value().strip())
            except ValueError:
                raise ValueError(f"key {place} isn't 32 bytes in url-safe base64") from None
        return keys

    @model_validator(mode="after")
    def _keys_guard_a_shared_database(self) -> Settings:
        if self.database_url is not None and not self.secret_keys:
            raise ValueError(
                "secret_keys is missing: a database of its own needs a key to encrypt tokens with "
                "(32 bytes, url-safe base64)"
            )
        return self

    def told(self, loc: tuple[int | str, ...], sentence: str) -> str:
        """With its place in the configuration, for those who find out later what is wrong there."""
        dotted = ".".join(map(str, loc))
        return f"{dotted} {sentence}" if self._place is None else f"{self._place(loc)}: {dotted} {sentence}"

    def application(self, name: str) -> tuple[str, Application] | None:
        """The department and the application of that id."""
        for department, part in self.departments.items():
            if name in part.applications:
                return department, part.applications[name]
        return None


def load(path: Path | None, environment: Mapping[str, str]) -> Settings:
    """Read the configuration, or raise Misconfigured with every problem and its place."""
    try:
        text = path.read_text(encoding="utf-8") if path else ""
        tree = read_tree(str(path or "environment"), text, environment, _read_file)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it isn't UTF-8 text"
        raise Misconfigured([f"{path}: can't be read: {reason}"]) from None
    except Unreadable as error:
        raise Misconfigured(error.problems) from None
    try:
        settings = Settings(**tree.values)
    except ValidationError as error:
        raise Misconfigured(_sentence(tree, problem) for problem in error.errors()) from None
    problems = [*_dangling(settings, tree), *_unserved(settings, tree)]
    if problems:
        raise Misconfigured(problems)
    settings._place = tree.place
    return settings


def encryption_keys(settings: Settings) -> list[str]:
    """The configured keys; with the embedded database one of its own, made at the first start."""
    if settings.secret_keys:
        return [key.get_secret_value() for key in settings.secret_keys]
    path = settings.data_dir / "secret.key"
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        if not path.exists():
            _write_once(path, Fernet.generate_key())
    except OSError as error:
        raise Misconfigured([f"{path}: can't be written: {error.strerror}; see data_dir"]) from None
    return [path.read_text(encoding="ascii")]


def _write_once(path: Path, content: bytes) -> None:
    """Whole or not at all, and by one only: another process may be starting at this moment."""
    handle, beside = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    try:
        Path(beside).hardlink_to(path) if False else os.link(beside, path)
    except FileExistsError:
        pass
    finally:
        Path(beside).unlink()


def process_environment() -> dict[str, str]:
    return dict(os.environ)


def config_path(environment: Mapping[str, str]) -> Path | None:
    """The file that GATEWAY_CONFIG names."""
    named = environment.get("GATEWAY_CONFIG")
    return Path(named) if named else None


def _read_file(path: str) -> str:
    return Path(path).read_text(encoding="utf-8")


def _sentence(tree: ConfigurationTree, problem: Any) -> str:
    loc, kind, message = tuple(problem["loc"]), problem["type"], problem["msg"]
    if kind == "extra_forbidden":
        allowed = ", ".join(_allowed_keys(loc[:-1])) or "none"
        return f"{tree.place(loc)}: {tree.dotted(loc)} is not a key here; allowed: {allowed}"
    if kind == "missing":
        return f"{tree.place(loc[:-1])}: {tree.dotted(loc)} is missing"
    if kind == "union_tag_not_found":
        return f"{tree.place(loc)}: {tree.dotted(loc)}.kind is missing"
    if kind == "union_tag_invalid":
        named, allowed = problem["ctx"]["tag"], problem["ctx"]["expected_tags"]
        return f"{tree.place((*loc, 'kind'))}: {tree.dotted(loc)}.kind: no kind {named}; allowed: {allowed}"
    message = message.removeprefix("Value error, ").replace("Input should be", "should be", 1)
    return f"{tree.place(loc)}: {tree.dotted(loc) or 'configuration'}: {message}"


def _allowed_keys(loc: tuple[int | str, ...]) -> list[str]:
    """The keys of the model at `loc`, found by walking the annotations from the top."""
    here: Any = Settings
    for part in loc:
        if isinstance(here, type) and issubclass(here, BaseModel):
            if part not in here.model_fields:
                continue  # pydantic puts a union's tag into the path
            here = _inner(here.model_fields[str(part)].annotation)
        elif isinstance(here, tuple):  # a union of kinds: the path names the one that was tried
            named = [m for m in here if part in (m.__name__, _kind_of(m))]
            here = named[0] if named else here
        if isinstance(here, dict):
            here = here["values"]
    return sorted(here.model_fields) if isinstance(here, type) and issubclass(here, BaseModel) else []


def _kind_of(model: type[BaseModel]) -> str | None:
    field = model.model_fields.get("kind")
    return None if field is None else next(iter(getattr(field.annotation, "__args__", ())), None)


def _inner(annotation: Any) -> Any:
    """The model, or the tuple of models, that an annotation is about."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    origin = getattr(annotation, "__origin__", None)
    arguments = list(getattr(annotation, "__args__", ()))
    if origin is dict:
        arguments = arguments[1:]
    models: list[Any] = []
    for argument in arguments:
        inner = _inner(argument)
        models += inner if isinstance(inner, tuple) else [inner] if inner is not None else []
    return None if not models else models[0] if len(models) == 1 else tuple(models)


def _dangling(settings: Settings, tree: ConfigurationTree) -> list[str]:
    """Names that point at nothing."""
    problems = []

    def known(loc: tuple[str, ...], what: str, name: str, names: Iterable[str]) -> None:
        if name not in (allowed := sorted(names)):
            places = ", ".join(allowed) or "none is configured"
            problems.append(f"{tree.place(loc)}: {tree.dotted(loc)}: no {what} {name}; allowed: {places}")

    seen: dict[str, str] = {}
    for department, part in settings.departments.items():
        for name, application in part.applications.items():
            loc = ("departments", department, "applications", name)
            if name in seen:
                problems.append(
                    f"{tree.place(loc)}: {tree.dotted(loc)}: application {name} is already in {seen[name]}"
                )
            seen[name] = department
            known((*loc, "adapter"), "adapter", application.adapter, settings.adapters)
            for shadow in application.shadow:
                known((*loc, "shadow"), "adapter", shadow, settings.adapters)
            for archive in application.archives:
                known((*loc, "archives"), "archive", archive, settings.archives)
            for destination in application.deliver:
                known((*loc, "deliver"), "destination", destination, {"sectra", *settings.destinations})
    for name, place in settings.destinations.items():
        if isinstance(place, StowDestination | CStoreDestination):
            known(("destinations", name, "archive"), "archive", place.archive, settings.archives)
    problems += [f"{tree.place(loc)}: {tree.dotted(loc)}: {what}" for loc, what in _unspoken(settings)]
    if "sectra" in settings.destinations:
        problems.append("destinations.sectra: the name sectra is taken by the slide itself; choose another")
    return problems


def _unspoken(settings: Settings) -> Iterable[tuple[tuple[str, ...], str]]:
    """What needs DICOM to be spoken in a way that isn't configured."""
    for name, place in settings.destinations.items():
        if isinstance(place, StowDestination | CStoreDestination) and place.archive in settings.archives:
            needed = "dicomweb" if isinstance(place, StowDestination) else "dimse"
            if settings.archives[place.archive].kind != needed:
                yield ("destinations", name, "archive"), f"{place.kind} needs an archive of kind {needed}"
    if settings.dimse is not None:
        return
    for name, archive in settings.archives.items():
        if isinstance(archive, DimseArchive) and archive.retrieve == "move":
            yield ("archives", name, "retrieve"), "needs our storage service: configure dimse"
    for department, part in settings.departments.items():
        for name, application in part.applications.items():
            if application.ae_title is not None:
                loc = ("departments", department, "applications", name, "ae_title")
                yield loc, "needs our storage service: configure dimse"


def _unserved(settings: Settings, tree: ConfigurationTree) -> list[str]:
    """What is configured rightly but not served by this release: said, rather than silently ignored."""
    found: list[tuple[tuple[str, ...], str]] = []
    for department, part in settings.departments.items():
        for name, application in part.applications.items():
            loc = ("departments", department, "applications", name)
            for key in ("deidentify", "shadow"):
                if getattr(application, key):
                    found.append(((*loc, key), key))
    return [
        f"{tree.place(loc)}: {tree.dotted(loc)}: {what}: not served by this release yet; take it out to start"
        for loc, what in found
    ]
