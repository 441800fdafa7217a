"""The configuration as a tree of plain values that remembers where each came from.

YAML gives the values and their lines; `GATEWAY_…` variables lie over them; `${NAME}` and `${file:…}` are
filled in. What the values mean is the business of `sections.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

PREFIX = "GATEWAY_"
NOT_SETTINGS = {"GATEWAY_CONFIG"}
# Kubernetes sets these in every pod of a namespace with a Service called "gateway".
SERVICE_LINK = re.compile(r"GATEWAY_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP)(_\w+)?)$")


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

    def known_path(self, loc: Sequence[int | str]) -> tuple[str, ...]:
        """`loc` without the steps that pydantic adds for unions, as far as the file goes."""
        path: tuple[str, ...] = ()
        for part in loc:
            if (*path, str(part)) in self.places:
                path = (*path, str(part))
        return path

    def place(self, loc: Sequence[int | str]) -> str:
        return self.places.get(self.known_path(loc), self.source)

    def dotted(self, loc: Sequence[int | str]) -> str:
        path = self.known_path(loc)
        missing = [str(loc[-1])] if loc and (not path or str(loc[-1]) != path[-1]) else []
        return ".".join((*path, *missing))


def read_tree(
    source: str, text: str, environment: Mapping[str, str], read_file: Callable[[str], str]
) -> ConfigurationTree:
    tree = ConfigurationTree(source)
    _read_yaml(text, tree)
    problems = [*_lay_over(tree, environment), *_fill_in(tree, environment, read_file)]
    if problems:
        raise Misconfigured(problems)
    return tree


def _read_yaml(text: str, tree: ConfigurationTree) -> None:
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise Misconfigured([f"{tree.source} line {line}: isn't YAML: {error.problem}"]) from None
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise Misconfigured([f"{tree.source} line 1: the configuration is a mapping of keys to values"])
    tree.values = values
    _note_lines(node, (), tree)


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
        if SERVICE_LINK.match(name) or text.startswith(("tcp://", "udp://")):
            continue
        value: Any = text
        if text[:1] in ("[", "{"):
            try:
                value = yaml.safe_load(text)
            except yaml.YAMLError:
                problems.append(f"{name}: isn't a YAML or JSON list or mapping")
                continue
        problem = _put(tree, name, name[len(PREFIX) :].split("__"), value)
        if problem:
            problems.append(problem)
    return problems


def _put(tree: ConfigurationTree, name: str, parts: list[str], value: Any) -> str | None:
    here: Any = tree.values
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
            return {key: fill(inner, (*path, str(key))) for key, inner in value.items()}
        if isinstance(value, list):
            return [fill(inner, (*path, str(index))) for index, inner in enumerate(value)]
        if not isinstance(value, str) or "${" not in value:
            return value

        def look_up(found: re.Match[str]) -> str:
            name = found[1]
            place = f"{tree.place(path)}: {'.'.join(path)}"
            if name.startswith("file:"):
                try:
                    return read_file(name[5:]).strip()
                except (OSError, UnicodeDecodeError):
                    problems.append(f"{place}: the file {name[5:]} can't be read")
            elif name in environment:
                return environment[name]
            else:
                problems.append(f"{place}: the environment variable {name} isn't set")
            return ""

        return re.sub(r"\$\{([^}]*)\}", look_up, value)

    tree.values = fill(tree.values, ())
    return problems
