"""Damaged models never bring graphopt down."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fuzz.fuzz import fuzz

RUNS = 200
LONG_RUNS = 20_000
SHARDS = 10


def _check(first: int, runs: int, record: Callable[[str, object], None]) -> None:
    outcome = fuzz(first, runs)
    record("figures", {f"fuzz: {kind}": count for kind, count in outcome.counts.items()})
    assert not outcome.findings, "\n".join(f"{words}: seeds {seeds[:10]}" for words, seeds in outcome.kinds().items())
    assert outcome.counts["done"] > runs // 20
    assert outcome.counts["refused"] > runs // 20


def test_damaged_models(record_property: Callable[[str, object], None]) -> None:
    _check(0, RUNS, record_property)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("shard", range(SHARDS))
def test_damaged_models_at_length(shard: int, record_property: Callable[[str, object], None]) -> None:
    each = LONG_RUNS // SHARDS
    _check(RUNS + shard * each, each, record_property)
