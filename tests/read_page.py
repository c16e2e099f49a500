"""Shared by the tests of pages: what every report is, whatever it is of."""

import base64
import hashlib
import itertools
import json
import re
from html.parser import HTMLParser
from typing import Any

from harness.report import page as report

VOID = {"source", "meta", "img", "br", "hr", "link", "input"}


class Reader(HTMLParser):
    """Checks that tags close in order and that the page can be found one's way in without seeing it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.images: list[str | None] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)
        self.close()
        assert self.open == []
        self.check()

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        assert len(found) == len(attributes), f"an attribute twice in {tag}"
        self.tags.append((tag, found))
        self.addresses += [found[name] for name in ("src", "href", "srcset", "action", "data") if name in found]
        if tag == "img":
            self.images.append(found.get("alt"))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)

    def check_policy(self) -> None:
        """A browser loads the page's own style, script and images, and nothing else."""
        policies = [
            found["content"] for tag, found in self.tags if found.get("http-equiv") == "Content-Security-Policy"
        ]
        rules = dict(rule.split(" ", 1) for rule in policies[0].split("; ")) if policies else {}
        assert {name: rules.pop(name, None) for name in ("default-src", "img-src", "base-uri", "form-action")} == {
            "default-src": "'none'", "img-src": "data:", "base-uri": "'none'", "form-action": "'none'"
        }  # fmt: skip
        hashes = {}
        for name in ("style", "script"):
            (text,) = self.texts[name]
            digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            hashes[f"{name}-src"] = f"'sha256-{digest}'"
        assert rules == hashes
        assert not [name for _, found in self.tags for name in found if name == "style" or name.startswith("on")]

    def check(self) -> None:
        ids = [found["id"] for _, found in self.tags if "id" in found]
        assert len(ids) == len(set(ids))
        named = [found[name] for _, found in self.tags for name in ("aria-labelledby", "for") if name in found]
        assert set(named) <= set(ids)
        links = [found["href"] for tag, found in self.tags if tag == "a"]
        assert {link.removeprefix("#") for link in links} <= set(ids)
        assert all(found.get("scope") in ("col", "row") for tag, found in self.tags if tag == "th")
        levels = [int(tag[1]) for tag, _ in self.tags if re.fullmatch(r"h[1-6]", tag)]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
        assert all(self.images)
        self.check_policy()
        html = next(found for tag, found in self.tags if tag == "html")
        assert html.get("lang") == "en"
        assert [tag for tag, _ in self.tags].count("main") == 1
        for tag, found in self.tags:
            assert not any(name.startswith("on") for name in found), tag
            if found.get("role") in ("region", "search"):
                assert found.get("aria-label") or found.get("aria-labelledby")
            if "tabindex" in found:
                assert found["tabindex"] == "0"


def strict(result: report.Report) -> dict[str, Any]:
    return json.loads(json.dumps(result.summary, allow_nan=False))


def holds(result: report.Report) -> str:
    """What every report is, whatever it is of; the Markdown comes back."""
    Reader(result.page.read_text())
    strict(result)
    text = (result.folder / "report.md").read_text()
    assert not re.search(r"\bnan\b|\bNaN\b(?! or)|\bNone \||[-−+]?\binf\b|<NA>", text)
    for table in re.findall(r"(?m)(?:^\|.*\|$\n?)+", text):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1, table
    return text
