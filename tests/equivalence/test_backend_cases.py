"""onnx's own node cases, plain and wrapped, through the default pipeline and through each pass alone."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest
from equivalence import backend, cases

Record = Callable[[str, object], None]

SAMPLE = 120
SHARDS = 16


def _specs() -> list[str]:
    return ["default", *backend.pass_names()]


def _check(chosen: Sequence[cases.Case], variant: str, record: Record) -> list[backend.Verdict]:
    verdicts = [backend.judge(case, variant, _specs()) for case in chosen]
    record("figures", backend.tally(verdicts))
    failures = [f"{one.case}: {line}" for one in verdicts for line in one.failures]
    assert not failures, "\n".join(failures)
    return verdicts


@pytest.mark.parametrize("variant", cases.VARIANTS)
def test_sample_stays_equal(variant: str, record_property: Record) -> None:
    verdicts = _check(cases.sample(SAMPLE if variant == "plain" else SAMPLE // 3), variant, record_property)
    assert sum(one.status == "ran" for one in verdicts) > len(verdicts) // 4
    if variant == "all-constant":
        assert sum(one.changed for one in verdicts) > len(verdicts) // 4, "nothing folds, so nothing is tested"


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("shard", range(SHARDS))
@pytest.mark.parametrize("variant", cases.VARIANTS)
def test_every_case_stays_equal(variant: str, shard: int, record_property: Record) -> None:
    _check(cases.collect()[shard::SHARDS], variant, record_property)


def _check_validated(chosen: Sequence[cases.Case], record: Record) -> None:
    runnable = [case for case in chosen if backend.reference(case)[0] == "ran"]
    failures = [failure for case in runnable if (failure := backend.validated(case))]
    record("figures", {"validated: ran": len(runnable), "validated: no pass dropped": len(runnable) - len(failures)})
    assert not failures, "\n".join(failures)


def test_sample_is_proven(record_property: Record) -> None:
    _check_validated(cases.sample(14, seed=1), record_property)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("shard", range(SHARDS))
def test_every_case_is_proven(shard: int, record_property: Record) -> None:
    _check_validated(cases.collect()[shard::SHARDS], record_property)


def _check_unharmed(chosen: Sequence[cases.Case], record: Record) -> None:
    found = [backend.unharmed(case) for case in chosen]
    failures = [failure for failure, _ in found if failure]
    evaluated = sum(evaluated for _, evaluated in found)
    record(
        "figures",
        {
            "ONNX Runtime cannot run: cases": len(found),
            "ONNX Runtime cannot run: unproven and unharmed": len(found) - len(failures),
            "ONNX Runtime cannot run: reference evaluator agrees": evaluated,
        },
    )
    assert not failures, "\n".join(failures)


def test_sample_that_cannot_run_is_unproven_and_unharmed(record_property: Record) -> None:
    refused = [case for case in cases.sample(200, seed=2) if backend.reference(case)[0] == "not run"]
    _check_unharmed(random.Random(2).sample(refused, 10), record_property)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("shard", range(SHARDS))
def test_every_case_that_cannot_run_is_unproven_and_unharmed(shard: int, record_property: Record) -> None:
    chosen = [case for case in cases.collect()[shard::SHARDS] if backend.reference(case)[0] == "not run"]
    _check_unharmed(chosen, record_property)
