"""Plain data."""

from __future__ import annotations

import math

from graphopt.reporting.plain import finite


def test_what_json_lacks_is_none_at_any_depth() -> None:
    data = {"a": math.nan, "b": [1.5, (math.inf, "x")], "c": {"d": -math.inf, "e": 0}}
    assert finite(data) == {"a": None, "b": [1.5, [None, "x"]], "c": {"d": None, "e": 0}}
