"""Catalogs as YAML: read without surprises, written as a person would, and the line that an error is about."""

from __future__ import annotations

import json
import re
from typing import Any

import click
import yaml

_STEP = re.compile(r"\[(\d+)\]")


class _Reader(yaml.SafeLoader):
    """YAML without what surprises: `no` is a word, a date is a word, 1:30 is no number, and no key stands twice."""

    yaml_implicit_resolvers: Any = {}


_WORDS = (
    ("bool", r"^(?:true|false)$", "tf"),
    ("int", r"^[-+]?[0-9][0-9_]*$", "-+0123456789"),
    ("float", r"^[-+]?[0-9][0-9_]*\.[0-9]+(?:[eE][-+]?[0-9]+)?$", "-+0123456789"),
    ("null", r"^(?:~|null|)$", ["~", "n", ""]),
    ("merge", r"^<<$", "<"),
)
for _tag, _pattern, _first in _WORDS:
    _Reader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))
_Reader.add_constructor("tag:yaml.org,2002:int", lambda _, node: int(node.value.replace("_", "")))


def _require_each_key_once(node: yaml.Node | None, seen: set[int]) -> None:
    """Looked at before anything is merged: what is merged in may be said otherwise. Raises: ConstructorError."""
    if not isinstance(node, yaml.CollectionNode) or id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for one in node.value:
            _require_each_key_once(one, seen)
        return
    lines: dict[str, int] = {}
    for key, value in node.value:
        if isinstance(key, yaml.ScalarNode):
            if key.value in lines:
                problem = f"{key.value!r} stands here a second time, after line {lines[key.value]}"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            lines[key.value] = key.start_mark.line + 1
        _require_each_key_once(value, seen)


def read_catalog(text: str, name: str) -> dict[str, Any]:
    """What a file says. Sections that are left empty are left out.

    Raises: ClickException: it is no YAML, or no mapping; with the line.
    """
    try:
        node = yaml.compose(text, _Reader)
        _require_each_key_once(node, set())
        found = yaml.load(text, _Reader)  # noqa: S506 - a safe loader of our own
        json.dumps(found, allow_nan=False)  # nothing that holds itself, and no number without an end
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise click.ClickException(f"{name}:{line}: {error.problem or 'is no YAML'}") from None
    except (yaml.YAMLError, TypeError, ValueError, RecursionError) as error:
        raise click.ClickException(f"{name}: is no catalog: {error}") from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise click.ClickException(f"{name}: expected sections: meters, features, price_books, plans, add_ons")
    # A section whose name begins with a dot holds what others refer to (&name, *name), and is no part of the catalog.
    return {key: value for key, value in found.items() if value is not None and not str(key).startswith(".")}


def write_catalog(file: dict[str, Any]) -> str:
    """A catalog as YAML, with one line for each entry of a list. The same catalog gives the same text."""
    return yaml.dump(file, Dumper=_Writer, sort_keys=False, allow_unicode=True, width=118, default_flow_style=None)


class _Writer(yaml.SafeDumper):
    """Indents lists under their names; never refers back to what it has said."""

    def ignore_aliases(self, data: object) -> bool:
        """Always."""
        del data
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        """With lists further in."""
        del indentless
        super().increase_indent(flow, False)


for _tag, _pattern, _first in _WORDS:  # a text that would be read back as something else is put in quotes
    _Writer.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


def line_of(text: str, path: str) -> int | None:
    """The line that a path such as ``plans.pro.limits[2].meter`` leads to, as far as it leads; ``None``: nowhere."""
    try:
        node = yaml.compose(text, _Reader)
    except yaml.YAMLError:
        return None
    line = None
    rest = path
    while node is not None and rest:
        if (at := _STEP.match(rest)) and isinstance(node, yaml.SequenceNode) and int(at[1]) < len(node.value):
            node, rest = node.value[int(at[1])], rest[at.end() :]
            line = node.start_mark.line + 1
            continue
        found = _entry(node, rest.removeprefix("."))
        if found is None:
            break
        key, node = found
        line, rest = key.start_mark.line + 1, rest.removeprefix(".")[len(key.value) :]
    return line


def _entry(node: yaml.Node, path: str) -> tuple[yaml.Node, yaml.Node] | None:
    """The entry whose key the path begins with: keys may hold dots, so the longest that fits."""
    if not isinstance(node, yaml.MappingNode):
        return None
    fitting = [
        (key, value)
        for key, value in node.value
        if path.startswith(str(key.value)) and path[len(key.value) : len(key.value) + 1] in {"", ".", "["}
    ]
    return max(fitting, key=lambda entry: len(entry[0].value), default=None)


def _text(writer: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    """In double quotes where it holds a line break that only YAML knows: there it is spelt out, elsewhere folded."""
    style = '"' if any(letter in text for letter in "\x85\u2028\u2029\ufeff") else None
    return writer.represent_scalar("tag:yaml.org,2002:str", text, style)


_Writer.add_representer(str, _text)
