"""gateway.yaml and the environment, read once into frozen, validated settings.

The only room that reads environment variables and configuration files. Precedence: `GATEWAY_…` variables,
then the file, then the defaults here. Every problem names its place: the line of the file, or the variable.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet
from pydantic import BaseModel, ValidationError

from gateway.settings.checks import find_disagreements
from gateway.settings.sections import Settings
from gateway.settings.tree import ConfigurationTree, Misconfigured, read_tree


def load(path: Path | None, environment: Mapping[str, str]) -> Settings:
    """Read the configuration, or raise Misconfigured with every problem and its place."""
    try:
        text = path.read_text(encoding="utf-8") if path else ""
        tree = read_tree(str(path or "environment"), text, environment, _read_file)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it isn't UTF-8 text"
        raise Misconfigured([f"{path}: can't be read: {reason}"]) from None
    try:
        settings = Settings(**tree.values)
    except ValidationError as error:
        raise Misconfigured(_sentence(tree, problem) for problem in error.errors()) from None
    problems = find_disagreements(settings, tree)
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
        os.link(beside, path)
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
            here = models_of(here.model_fields[str(part)].annotation)
        elif isinstance(here, tuple):  # a union of kinds: the path names the one that was tried
            named = [m for m in here if part in (m.__name__, _kind_of(m))]
            here = named[0] if named else here
        if isinstance(here, dict):
            here = here["values"]
    return sorted(here.model_fields) if isinstance(here, type) and issubclass(here, BaseModel) else []


def _kind_of(model: type[BaseModel]) -> str | None:
    field = model.model_fields.get("kind")
    return None if field is None else next(iter(getattr(field.annotation, "__args__", ())), None)


def models_of(annotation: Any) -> Any:
    """The model, or the tuple of models, that an annotation is about."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    origin = getattr(annotation, "__origin__", None)
    arguments = list(getattr(annotation, "__args__", ()))
    if origin is dict:
        arguments = arguments[1:]
    models: list[Any] = []
    for argument in arguments:
        inner = models_of(argument)
        models += inner if isinstance(inner, tuple) else [inner] if inner is not None else []
    return None if not models else models[0] if len(models) == 1 else tuple(models)
