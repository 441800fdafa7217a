"""gateway.yaml and the environment, read once into frozen, validated settings.

The only room that reads environment variables and configuration files. Precedence: `GATEWAY_…` variables,
then the file, then the defaults here. Every problem names its place: the line of the file, or the variable.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet
from pydantic import BaseModel, ValidationError

from gateway.nearest import did_you_mean
from gateway.settings.checks import find_disagreements
from gateway.settings.effective import describe
from gateway.settings.faults import say, without_other_branches
from gateway.settings.sections import Settings
from gateway.settings.tree import PREFIX, ConfigurationTree, Misconfigured, read_tree

_WHERE = ("database_url", "data_dir")


def load(path: Path | None, environment: Mapping[str, str]) -> Settings:
    """Read the configuration, or raise Misconfigured with every problem and its place."""
    try:
        text = path.read_text(encoding="utf-8") if path else ""
        tree = read_tree(str(path or "environment"), text, environment, _read_file)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it isn't UTF-8 text"
        raise Misconfigured([f"{path}: can't be read: {reason}"]) from None
    settings = _validate(tree)
    problems = find_disagreements(settings, tree)
    if problems:
        raise Misconfigured(problems)
    settings._place = tree.place
    settings._text = describe(tree)
    settings._files = tuple(Path(file) for file in sorted({*([str(path)] if path else []), *tree.files}))
    return settings


def load_whereabouts(path: Path | None, environment: Mapping[str, str]) -> Settings:
    """Where the database is, though the whole is no good: to look at what isn't encrypted there. Raises
    Misconfigured where nothing says where."""
    try:
        text = path.read_text(encoding="utf-8") if path else ""
    except (OSError, UnicodeDecodeError):
        text = ""
    lines = [line for line in text.splitlines() if re.match(rf"({'|'.join(_WHERE)}):", line)]
    theirs = {PREFIX + key.upper() for key in _WHERE}
    known = {
        name: said for name, said in environment.items() if name in theirs or not name.startswith(PREFIX)
    }
    tree = read_tree(str(path or "environment"), "\n".join(lines), known, _read_file)
    if not tree.values:
        raise Misconfigured(["neither database_url nor data_dir says where the database is"])
    tree.values["secret_keys"] = [Fernet.generate_key().decode()]  # a database that is named asks for one
    return _validate(tree)


def _validate(tree: ConfigurationTree) -> Settings:
    hidden = [key for key in tree.values if key.startswith("_")]  # they would be pydantic's own parameters
    if hidden:
        raise Misconfigured(
            _sentence(tree, {"loc": (key,), "type": "extra_forbidden", "msg": ""}) for key in hidden
        )
    try:
        return Settings(**tree.values)
    except ValidationError as error:
        problems = without_other_branches(error.errors())
    if not tree.take_literally(problem["loc"] for problem in problems):
        raise Misconfigured(_sentence(tree, problem) for problem in problems)
    try:
        return Settings(**tree.values)
    except ValidationError:
        raise Misconfigured(_sentence(tree, problem) for problem in problems) from None


def process_environment() -> dict[str, str]:
    return dict(os.environ)


def config_path(environment: Mapping[str, str]) -> Path | None:
    """The file that GATEWAY_CONFIG names."""
    named = environment.get("GATEWAY_CONFIG")
    return Path(named) if named else None


def _read_file(path: str) -> str:
    return Path(path).read_text(encoding="utf-8")


def _sentence(tree: ConfigurationTree, problem: Any) -> str:
    loc, kind = tuple(problem["loc"]), problem["type"]
    if kind == "extra_forbidden":
        allowed = _allowed_keys(loc[:-1])
        listed = f"{', '.join(allowed) or 'none'}{did_you_mean(loc[-1], allowed)}"
        return f"{tree.place(loc)}: {tree.dotted(loc)} is not a key here; allowed: {listed}"
    if kind == "missing":
        return f"{tree.place(loc[:-1])}: {tree.dotted(loc)} is missing"
    if kind == "union_tag_not_found":
        return f"{tree.place(loc)}: {tree.dotted(loc)}.kind is missing"
    if kind == "union_tag_invalid":
        named, allowed = problem["ctx"]["tag"], problem["ctx"]["expected_tags"]
        allowed += did_you_mean(named, re.findall("'([^']*)'", allowed))
        return f"{tree.place((*loc, 'kind'))}: {tree.dotted(loc)}.kind: no kind {named}; allowed: {allowed}"
    return f"{tree.place(loc)}: {tree.dotted(loc) or 'configuration'}: {say(problem)}"


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
    if not (isinstance(here, type) and issubclass(here, BaseModel)):
        return []
    return sorted(field.alias or name for name, field in here.model_fields.items())


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
