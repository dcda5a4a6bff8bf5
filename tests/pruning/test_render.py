"""What people see of a pruning."""

from __future__ import annotations

import dataclasses
import io
import math
from typing import Any

import pytest
from rich.console import Console

from graphopt.benchmark.stats import Interval
from graphopt.pruning.plan import Plan, Settings
from graphopt.pruning.reconstruction import Refit
from graphopt.pruning.render import brief
from graphopt.pruning.report import Fidelity, GroupOutcome, PruneReport, Size


def report(**changes: Any) -> PruneReport:
    """One with everything in it."""
    groups = [
        GroupOutcome("/net/stem/Conv", 16, 16, (0.0, 0.5, 1.0), heads=False),
        GroupOutcome("/net/layer.0/conv/Conv", 64, 32, tuple(0.01 * k for k in range(58)), heads=False),
        GroupOutcome("/net/layer.1/attention/query/MatMul", 8, 6, (0.0, 0.1, 0.96), heads=True),
    ]
    refits = [Refit("/net/layer.0/out/Conv", 4096, 0.01, 0.5, 0.05), Refit("/net/head/Gemm", 64, None, 12.0, 0.2)]
    given: dict[str, Any] = {
        "goal": "macs=0.5",
        "before": Size(2_000_000, 100_000, 400_000, 20, 900_000),
        "after": Size(1_000_000, 40_000, 160_000, 22, 500_000),
        "groups": groups,
        "refits": refits,
        "proof": "proven",
        "fidelity": Fidelity(512, {"logits": 0.0123}, {"logits": 0.998}, (0.97, 0.965)),
        "speedup": Interval(1.9, 1.85, 1.95),
        "plan": Plan("m", "macs=0.5", Settings(), "d", {"a": [0]}, {"a": 2}),
        "notes": ["a note"],
        "seconds": {"load": 0.0001, "rank": 2.0, "reconstruct": 6.0},
    }
    return PruneReport(**(given | changes))


def shown(one: PruneReport, width: int = 110, **settings: Any) -> list[str]:
    stream = io.StringIO()
    Console(file=stream, width=width, highlight=False, **settings).print(one)
    return [line.rstrip() for line in stream.getvalue().splitlines()]


def test_all_of_it() -> None:
    assert shown(report()) == [
        "goal macs=0.5: 34 of 88 channels or heads went, from 2 of 3 groups",
        "",
        "            before   after    left  ratio",
        "MACs        2.00 M  1.00 M   50.0%  2.00x",
        "parameters   100 k  40.0 k   40.0%  2.50x",
        "weights     400 kB  160 kB   40.0%  2.50x",
        "memory      900 kB  500 kB   55.6%  1.80x",
        "nodes           20      22  110.0%  0.91x",
        "",
        "group                      units  kept  share                    harm",
        "stem                          16    16   100%  ████████████████     -",
        "layer.0/conv                  64    32    50%  ████████           25%",
        "layer.1/attention/query  8 heads     6    75%  ████████████       75%",
        "harm: shares of the estimated harm.",
        "",
        "refitted layer  before  after   rows      ridge",
        "head             12.0x  20.0%     64  bias only",
        "layer.0/out      50.0%  5.00%  4,096       0.01",
        "before, after: what it misses of what the original computes, in shares of its variance on held-out inputs.",
        "",
        "a note",
        "Proven: removing the channels does what setting them to zero does; then what is left was refitted.",
        "On 512 of the calibration samples 'logits' differs from the original's by 1.23% of its variance; the same",
        "class comes first in 99.8%.",
        "Accuracy on them: 97.00% before, 96.50% after.",
        "Measured: 1.90x as fast (95% interval: 1.85x to 1.95x).",
        "8.00 s in all: rank 2.00 s, reconstruct 6.00 s",
    ]


def test_the_least_of_it() -> None:
    plan = Plan("m", "macs=1", Settings(), "", {}, {})
    groups = [GroupOutcome("a", 4, 4, (), heads=False)]
    size = Size(0, 10, 40, 3, 50)
    one = report(
        goal="macs=1", before=size, after=size, groups=groups, refits=[], proof="unverified", fidelity=None,
        speedup=None, plan=plan, notes=[], seconds={},
    )  # fmt: skip
    lines = shown(one)
    assert lines[0] == "goal macs=1: nothing had to go"
    assert "Nothing was removed." in lines
    assert not any("%" in line or "refitted" in line for line in lines)


@pytest.mark.parametrize(
    ("proof", "words"), [("unproven", "Unproven: ONNX Runtime cannot"), ("unverified", "Not verified")]
)
def test_what_was_not_proven(proof: str, words: str) -> None:
    lines = shown(report(proof=proof))
    assert any(line.startswith(words) for line in lines)
    assert not any(line.startswith("Proven") for line in lines)


def test_without_refits_nothing_is_said_of_them() -> None:
    assert "Proven: removing the channels does what setting them to zero does." in shown(report(refits=[]))


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_fits_any_terminal(width: int) -> None:
    lines = shown(report(), width)
    assert max(map(len, lines)) <= width
    assert ("█" in "".join(lines)) == (width >= 100)
    assert any(line.startswith("lay") and "n/query" in line for line in lines)
    assert any("layer.0/out" in line and "5.00%" in line for line in lines)
    assert any("50.0%" in line and "2.00 M" in line for line in lines)


def test_pipes_and_plain_terminals() -> None:
    plain = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    Console(file=plain, width=120).print(report())
    plain.flush()
    assert isinstance(plain.buffer, io.BytesIO)
    text = plain.buffer.getvalue().decode("ascii")
    assert "########" in text
    assert "\x1b" not in text


def test_many_groups_show_those_that_lost_most() -> None:
    groups = [GroupOutcome(f"g{n}", 100, 100 - n if n < 30 else 100, (), heads=False) for n in range(60)]
    lines = shown(report(groups=groups))
    assert [line.split()[0] for line in lines if line.startswith("g") and line[1].isdigit()] == [
        f"g{n}" for n in range(14, 30)
    ]
    assert "and 13 that lost less and 31 that stay whole; --json lists them all" in lines
    assert "harm" not in "".join(lines)


def test_the_ten_worst_layers() -> None:
    refits = [Refit(f"layer{n}", 10, 1.0, 1.0, n / 100) for n in range(14)] + [
        Refit("odd", 0, None, math.nan, math.nan)
    ]
    lines = shown(report(refits=refits))
    start = next(index for index, line in enumerate(lines) if line.startswith("refitted layer"))
    rows = [line.split() for line in lines[start + 1 : start + 11]]
    assert [row[0] for row in rows] == [f"layer{n}" for n in range(13, 3, -1)]
    assert "and 5 more that miss less" in lines
    assert any(line.split() == ["odd", "-", "-", "0", "bias", "only"] for line in shown(report(refits=refits[-1:])))


def test_several_outputs() -> None:
    fidelity = Fidelity(8, {"boxes": 0.5, "scores": 0.00001}, {"scores": 0.75}, None)
    lines = shown(report(fidelity=fidelity))
    assert ["boxes", "50.0%"] in [line.split() for line in lines]
    assert ["scores", "<0.01%", "75.0%"] in [line.split() for line in lines]
    assert any("the outputs differ from the original's by up to 50.0%" in line for line in lines)


def test_html_is_escaped() -> None:
    hostile = "<script>\x1b[2J"
    groups = [GroupOutcome(hostile, 4, 2, (), heads=False)]
    fidelity = Fidelity(1, {hostile: 0.1}, {}, None)
    one = report(groups=groups, refits=[Refit(hostile, 1, 1.0, 1.0, 0.5)], fidelity=fidelity, notes=[hostile])
    text = one._repr_html_()
    assert "<script>" not in text
    assert "\x1b" not in text
    assert text.count("&lt;script&gt;") == 4
    assert "Proven" in text
    assert not any("\x1b" in line for line in shown(one))


def test_brief_names() -> None:
    assert brief([]) == []
    assert brief(["/a/b/Conv"]) == ["b"]
    assert brief(["/a/b/Conv", "/a/c/Gemm"]) == ["b", "c"]
    assert brief(["/a/b/Conv", "/a/b/Gemm"]) == ["/a/b/Conv", "/a/b/Gemm"]
    assert brief(["/a/b/Conv#2", "Conv"]) == ["/a/b#2", "Conv"]
    assert brief(["a/weights", "a/bias"]) == ["weights", "bias"]


def test_dict_has_no_nan() -> None:
    one = report(refits=[Refit("odd", 0, None, math.nan, math.inf)])
    assert one.to_dict()["refits"] == [{"layer": "odd", "rows": 0, "ridge": None, "before": None, "after": None}]
    assert one.to_dict()["groups"][0] == {"name": "/net/stem/Conv", "units": 16, "kept": 16, "heads": False}
    assert dataclasses.asdict(one.after) == one.to_dict()["after"]
