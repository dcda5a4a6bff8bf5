"""Reports to show: a real one, one of hostile names and numbers, and a page taken apart."""

from __future__ import annotations

import json
import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

DIGITS = Path(__file__).parents[1] / "data" / "report-digits.json"
"""A ResNet for digits: pruned, distilled, audited and timed; what it says of quantization is made up."""

NAMES = (
    "<script>alert('x')</script>", '"><img src=x onerror=alert(1)>', "a\nb\r\n| c |\n# d", "x" * 5000,
    "\u202eevil\u0000\ud800", "日本語の層/畳み込み", "https://example.com/a.png", "{{7*7}}{% raw %}",
    "</style></svg><b>", "`code`*b*_i_[a](b)", "🦜", "-", "", "1. x", "=1+1", "&lt;b&gt;", "' style='x",
)  # fmt: skip
NUMBERS = (math.nan, math.inf, -math.inf, None, 0, -1, 10**400, 1e308, -1e308, 5e-324, 0.5, 1, 99.5, 10**15)

VOID = {"meta", "link", "br", "img", "hr", "input"}
SHAPES = {"path", "line", "circle", "polyline", "rect"}


def digits() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DIGITS.read_text("utf-8"))
    return found


def hostile(count: int) -> dict[str, Any]:
    """Every part, ``count`` of each."""

    def name(index: int) -> str:
        return f"{NAMES[index % len(NAMES)]}{index}"

    def number(index: int) -> Any:
        return NUMBERS[index % len(NUMBERS)]

    every = range(count)
    parts = [{"name": name(i), "samples": number(i), "before": number(i + 1), "after": number(i + 2)} for i in every]
    costs = {"macs": 10**400, "params": -5, "bytes": 0, "nodes": None, "latency_ms": math.nan, "score": 0.9}
    flip = {"label": NAMES[0], "confidence_before": 2, "confidence_after": math.nan}
    return {
        "title": "".join(NAMES),
        "verdict": {"met": False, "text": NAMES[1], "reasons": list(NAMES)},
        "goal": "latency=" + "9" * 400,
        "max_drop": "rel:0.5%",
        "metric": NAMES[0],
        "before": costs | {"ops": {name(i): number(i) for i in every}},
        "after": costs | {"score": 0.8, "bytes": math.inf, "params": 3},
        "stages": [{"name": name(i), "status": name(i), "seconds": number(i), "decision": name(i)} for i in every],
        "groups": [
            {
                "name": name(i), "units": 64, "kept": i % 64 + 1, "harm": [number(i + k) for k in range(64)],
                "sensitivity": [[k / 8, number(i + k)] for k in range(8)],
            }
            for i in every
        ],
        "layers": [
            {"name": name(i), "op": name(i), "before_ms": number(i), "after_ms": number(i + 1), "precision": name(i)}
            for i in every
        ],
        "points": [
            {
                "name": name(i), "latency": number(i), "score": number(i + 1), "drop": number(i), "bytes": number(i),
                "precision": name(i), "on_front": i % 9 == 0, "chosen": i == 10,
            }
            for i in every
        ],
        "checks": [
            {"name": name(i), "before": number(i), "harm": number(i), "limit": number(i + 1), "where": name(i)}
            for i in every
        ],
        "classes": parts,
        "slices": {name(i): parts[:20] for i in range(len(NAMES))},
        "flips": {"share": 0.5, "samples": [flip | {"index": i, "before": name(i), "after": name(0)} for i in every]},
        "history": [{"epoch": i, "loss": number(i), "score": number(i + 3)} for i in every],
        "notes": list(NAMES) * 9,
        "provenance": {"command": f"{NAMES[2]}```", "plan": {one: {one: [one, {one: one}]} for one in NAMES}},
    }  # fmt: skip


class Page(HTMLParser):
    """A page taken apart; raises ``AssertionError`` where tags do not match.

    Attributes:
        elements: Tags and attributes, in order.
        text: What is between tags, by the tag.
    """

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"an attribute twice: {tag} {attrs}"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in SHAPES, f"<{tag}/> is not closed in HTML"
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"closed twice: {tag}"
        assert self._open.pop() == tag, f"closed out of turn: {tag}"

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self._open[-1] if self._open else "", data.strip()))

    @property
    def words(self) -> str:
        """All that can be read."""
        return "\n".join(data for tag, data in self.texts if tag != "style")

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of the elements of a tag."""
        return [attributes for name, attributes in self.elements if name == tag]
