"""What passes say that they need: without it they would not fire anyway."""

from __future__ import annotations

import pytest
from bench.micrographs import CASES
from bench.micrographs.case import Case

from graphopt import proto
from graphopt.pipeline import registry, runner
from graphopt.pipeline.base import Context, Pass

PASSES = registry.resolve(["default"])


def fired(case: Case) -> dict[str, int]:
    model = proto.from_proto(case.model())
    return dict(runner.run(model, PASSES, Context(model)).counts)


@pytest.mark.parametrize("row", dict.fromkeys(case.row for case in CASES))
def test_needs_hide_nothing(row: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [case for case in CASES if case.row == row]
    with_needs = [fired(case) for case in cases]
    for one in {type(one) for one in PASSES if one.needs}:
        monkeypatch.setattr(one, "needs", Pass.needs)
    assert [fired(case) for case in cases] == with_needs
