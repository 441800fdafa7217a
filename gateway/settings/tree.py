"""The configuration as a tree of plain values that remembers where each came from.

YAML gives the values and their lines; `GATEWAY_…` variables lie over them; `${NAME}`, `${file:…}` and
`${credential:…}` are filled in. What the values mean is the business of `sections.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import yaml

PREFIX = "GATEWAY_"
_OF_KEY = "[key]"  # what pydantic calls it when it is about the key itself
NOT_SETTINGS = {"GATEWAY_CONFIG"}
_CREDENTIALS = "CREDENTIALS_DIRECTORY"  # where systemd puts what LoadCredential names
_OF_FOLDER = "gateway_"  # and before the names of those that our unit has it load as a folder
# Kubernetes sets these in every pod of a namespace with a Service called "gateway", or "gateway-" and more.
SERVICE_LINK = re.compile(r"GATEWAY_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP)(_\w+)?)$")
_LINKED_PORT = re.compile(r"GATEWAY_([A-Z0-9]+_)*PORT=(tcp|udp|sctp)://[^/?#@]*:\d+$")
# What breaks a path, a header or a line of the log; keys and templates have lines.
_UNWRITTEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


class Misconfigured(Exception):
    """The configuration can't be used: one sentence a problem, each with its place."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


@dataclass
class ConfigurationTree:
    """Plain values, and for each path the line or the variable it came from."""

    source: str
    values: dict[str, Any] = field(default_factory=dict)
    places: dict[tuple[str, ...], str] = field(default_factory=dict)
    variables: dict[tuple[str, ...], str] = field(default_factory=dict)  # what a variable says, as it stands
    filled: set[tuple[str, ...]] = field(default_factory=set)  # where `${…}` stood
    files: set[str] = field(default_factory=set)  # that were read for it

    def known_path(self, loc: Sequence[int | str]) -> tuple[str, ...]:
        """`loc` without the steps that pydantic adds for unions, as far as the file goes."""
        path: tuple[str, ...] = ()
        for part in loc:
            if (*path, str(part)) in self.places:
                path = (*path, str(part))
        return path

    def take_literally(self, locs: Iterable[Sequence[int | str]]) -> bool:
        """What a variable says there is a text, though it reads as a list or a mapping. False: nothing to
        change."""
        changed = False
        for path in {self.known_path(loc) for loc in locs}:
            here: Any = self.values
            for part in path[:-1]:
                here = here[int(part)] if isinstance(here, list) else here[part]
            text, last = self.variables.get(path), path[-1] if path else ""
            place: Any = int(last) if isinstance(here, list) else last
            if text is not None and here[place] != text:
                here[place] = text
                changed = True
        return changed

    def place(self, loc: Sequence[int | str]) -> str:
        return self.places.get(self.known_path(loc), self.source)

    def dotted(self, loc: Sequence[int | str]) -> str:
        path = self.known_path(loc)
        last = str(loc[-1]) if loc else ""
        missing = [last] if last not in ("", _OF_KEY, *path[-1:]) else []
        return ".".join((*path, *missing))


def read_tree(
    source: str, text: str, environment: Mapping[str, str], read_file: Callable[[str], str]
) -> ConfigurationTree:
    tree = ConfigurationTree(source)
    try:
        _read_yaml(text, tree)
        problems = [*_lay_over(tree, environment), *_fill_in(tree, environment, read_file)]
    except RecursionError:
        raise Misconfigured([f"{source}: is nested too deeply, or within itself"]) from None
    if problems:
        raise Misconfigured(problems)
    return tree


def _read_yaml(text: str, tree: ConfigurationTree) -> None:
    try:
        node = yaml.compose(text, Loader=_Loader)
        values = yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe one
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise Misconfigured([f"{tree.source} line {line}: isn't YAML: {error.problem}"]) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise Misconfigured([f"{tree.source} line {line}: isn't YAML: {_control(error.character)}"]) from None
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise Misconfigured([f"{tree.source} line 1: the configuration is a mapping of keys to values"])
    tree.values = values
    _note_lines(node, (), tree)


class _Loader(yaml.SafeLoader):
    """Keys are text, as they are written: a department may be called 1, an application off."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: ARG002
        self.flatten_mapping(node)
        return {self._key(key): self.construct_object(value, deep=True) for key, value in node.value}

    def _key(self, node: yaml.Node) -> str:
        if isinstance(node, yaml.ScalarNode):
            return str(node.value)
        raise yaml.constructor.ConstructorError(None, None, "a key is a single word", node.start_mark)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, OverflowError):  # a date that there isn't, a number without end
            raise yaml.constructor.ConstructorError(
                None, None, "a value that can't be read; put it in quotes", node.start_mark
            ) from None


def _control(character: Any) -> str:
    number = character if isinstance(character, int) else ord(str(character)[:1] or "\0")
    return f"a character that can't stand here (U+{number:04X})"


def _note_lines(node: yaml.Node | None, path: tuple[str, ...], tree: ConfigurationTree) -> None:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            line = f"{tree.source} line {key.start_mark.line + 1}"
            if key.value in seen:
                raise Misconfigured([f"{line}: {'.'.join((*path, key.value))} stands twice"])
            seen.add(key.value)
            tree.places[(*path, key.value)] = line
            _note_lines(value, (*path, key.value), tree)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            tree.places[(*path, str(index))] = f"{tree.source} line {value.start_mark.line + 1}"
            _note_lines(value, (*path, str(index)), tree)


def _lay_over(tree: ConfigurationTree, environment: Mapping[str, str]) -> list[str]:
    problems = []
    for name, text in sorted(environment.items()):
        if not name.startswith(PREFIX) or name in NOT_SETTINGS:
            continue
        if SERVICE_LINK.match(name) or _LINKED_PORT.match(f"{name}={text}"):
            continue
        problem = _put(tree, name, name[len(PREFIX) :].split("__"), text)
        if problem:
            problems.append(problem)
    return problems


def _meant(text: str) -> Any:
    """A list or a mapping where it reads as one; a password may begin like one."""
    if text[:1] not in ("[", "{"):
        return text
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe one
    except yaml.YAMLError:
        return text


def _put(tree: ConfigurationTree, name: str, parts: list[str], text: str) -> str | None:
    here: Any = tree.values
    value = _meant(text)
    path: tuple[str, ...] = ()
    for step, part in enumerate(parts):
        last = step == len(parts) - 1
        if isinstance(here, list):
            if not part.isdigit() or int(part) > len(here):
                return f"{name}: {'.'.join(path)} is a list: name one of its entries, 0 to {len(here)}"
            index = int(part)
            path = (*path, part)
            if index == len(here):
                here.append({})
            if last:
                here[index] = value
            here = here[index]
        elif isinstance(here, dict):
            key = _existing(here, part)
            path = (*path, key)
            if last:
                here[key] = value
            elif not isinstance(here.get(key), dict | list):
                here[key] = [] if parts[step + 1].isdigit() else {}
            here = here[key]
        else:
            return f"{name}: {'.'.join(path)} is a single value and has nothing below it"
        tree.places.setdefault(path, name)
    tree.places[path] = name
    tree.variables[path] = text
    return None


def _existing(mapping: dict[str, Any], part: str) -> str:
    """Variables have no case and no dashes: take the key that is written the same but for these."""
    wanted = part.lower().replace("-", "_")
    for key in mapping:
        if str(key).lower().replace("-", "_") == wanted:
            return key
    return part.lower()


def _fill_in(
    tree: ConfigurationTree, environment: Mapping[str, str], read_file: Callable[[str], str]
) -> list[str]:
    problems: list[str] = []

    def fill(value: Any, path: tuple[str, ...]) -> Any:
        if isinstance(value, dict):
            for key in filter(_UNWRITTEN.search, value):
                problems.append(f"{tree.place((*path, key))}: {key!r} is no key: it holds control characters")
            return {key: fill(inner, (*path, str(key))) for key, inner in value.items()}
        if isinstance(value, list):
            return [fill(inner, (*path, str(index))) for index, inner in enumerate(value)]
        if not isinstance(value, str):
            return value
        if unwritten := _UNWRITTEN.search(value):
            problems.append(f"{tree.place(path)}: {'.'.join(path)}: holds {_control(unwritten[0])}")
        if "${" not in value:
            return value

        def look_up(found: re.Match[str]) -> str:
            name = found[1]
            place = f"{tree.place(path)}: {'.'.join(path)}"
            tree.filled.add(path)
            kind, _, rest = name.partition(":")
            if kind == "credential" and _CREDENTIALS not in environment:
                problems.append(f"{place}: systemd gives no credential {rest} here (LoadCredential={rest}:…)")
            elif kind in ("file", "credential"):
                folder = environment.get(_CREDENTIALS)
                names = (rest,) if kind == "file" else (f"{folder}/{rest}", f"{folder}/{_OF_FOLDER}{rest}")
                for file in names:
                    with suppress(OSError, ValueError):  # no UTF-8, or no path at all
                        words = read_file(file).strip()
                        tree.files.add(file)
                        return words
                tree.files.update(names)
                problems.append(f"{place}: the file {names[0]} can't be read")
            elif name in environment:
                return environment[name]
            elif _is_from_variable(tree, path):
                return found[0]  # a password may hold it
            else:
                problems.append(f"{place}: the environment variable {name} isn't set")
            return ""

        whole = re.sub(r"\$\{([^}]*)\}", look_up, value)
        if "${" in re.sub(r"\$\{[^}]*\}", "", value) and not _is_from_variable(tree, path):
            place = f"{tree.place(path)}: {'.'.join(path)}"
            problems.append(f"{place}: a reference is written like ${{NAME}} or ${{file:/run/secrets/x}}")
        return whole

    tree.values = fill(tree.values, ())
    return problems


def _is_from_variable(tree: ConfigurationTree, path: tuple[str, ...]) -> bool:
    return any(path[:end] in tree.variables for end in range(1, len(path) + 1))
