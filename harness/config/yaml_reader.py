"""YAML as a sweep file uses it: no key twice, no typographic quotes."""

from __future__ import annotations

import re
from typing import Any

import yaml

from harness.common.errors import HarnessError, describe_value

PROSE = ("title", "stand_in")  # whose words may stand in any quotes


_TYPOGRAPHIC = "“”„‟‘’‚‛«»‹›"


def refuse_typographic(node: yaml.Node | None) -> None:
    """Refuse quotes that a word processor bent: YAML takes them for letters."""
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            refuse_typographic(item)
    elif isinstance(node, yaml.ScalarNode) and node.style is None and node.value[:1] in (*_TYPOGRAPHIC,):
        plain = node.value.strip(_TYPOGRAPHIC)
        raise HarnessError(
            f"line {node.start_mark.line + 1}: typographic quotes are not YAML's quotes",
            got=node.value[:60],
            fix=f'Write {plain[:60]}, or "{plain[:60]}"',
        )


_OF_SCRIPT = re.compile(r"^(?:command|function)\s*:", re.MULTILINE)


_READ_AS = {
    "tag:yaml.org,2002:bool": "a switch",
    "tag:yaml.org,2002:int": "a number",
    "tag:yaml.org,2002:float": "a number",
    "tag:yaml.org,2002:null": "nothing",
    "tag:yaml.org,2002:timestamp": "a date",
}


class _Loader(yaml.SafeLoader):
    """YAML with `1e-5` as a number, and a doubled key as an error instead of a silent overwrite."""

    keys_as_written = False

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Check the keys as they are written, before `<<` merges others in."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, value in node.value:
            line = f"line {key.start_mark.line + 1}"
            if key.value not in PROSE:
                refuse_typographic(value)
            refuse_typographic(key)
            if self.keys_as_written and key.id == "scalar" and key.tag != "tag:yaml.org,2002:merge":
                key.tag = "tag:yaml.org,2002:str"
            if key.tag not in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"):
                raise HarnessError(
                    f"{line}: a key must be text",
                    got=f"{key.value}, which YAML reads as {_READ_AS.get(key.tag, 'something else')}"
                    if key.id == "scalar"
                    else f"a {key.id}",
                    fix="Put it in quotes" if key.id == "scalar" else "Write a word before the colon",
                )
            if key.value in seen:
                raise HarnessError(f"{line}: duplicate key '{key.value}'", fix="Keep one of the two")
            seen.add(key.value)
        return node


class _ScriptLoader(_Loader):
    """The same for a script's axes, whose values may be keys: `amsgrad: {on: --amsgrad, off: ""}`."""

    keys_as_written = True


for _loader in (_Loader, _ScriptLoader):
    _loader.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)$"),
        list("-+0123456789."),
    )


def parse_yaml(text: str, source: str) -> Any:
    """Parse YAML; PyYAML has other errors than its own for dates like 2020-99-99 and lists nested a thousand deep."""
    try:
        return yaml.load(text, _ScriptLoader if _OF_SCRIPT.search(text) else _Loader)
    except HarnessError:
        raise
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "no such date or number"
        if isinstance(error, RecursionError):
            problem = "nested too deep"
        tab = "found character '\\t'" in problem
        if tab:
            problem, fix = "a tab cannot indent YAML", "Replace the tab with spaces"
        else:
            problem, fix = f"not valid YAML: {problem.removeprefix('but ')}", None
        raise HarnessError(f"{source}{where}: {problem}", fix=fix) from None


def require_mapping(value: object, name: str) -> dict[str, Any]:
    """The value, which must be a mapping; `name` is what holds it, for the message. Raises HarnessError."""
    if not isinstance(value, dict):
        raise HarnessError(f"{name} must be a mapping of `key: value` lines", got=describe_value(value))
    return value
