"""Plans: as text and back, and whose they are."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from pruning.examples import classifier

import graphopt
from graphopt.errors import ModelError, SaveError, UsageError
from graphopt.pruning.plan import Plan, Settings, digest_of

PLAN = Plan(
    digest_of(classifier()),
    "macs=0.5",
    Settings(allow_interface=("past_*",), threads=2),
    "0123",
    {"first": [0, 3, 5], "se\"cond\n": [31]},
    {"first": 32, "se\"cond\n": 32},
)  # fmt: skip


def test_round_trip(tmp_path: Path) -> None:
    assert Plan.from_json(PLAN.to_json()) == PLAN
    PLAN.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == PLAN
    nothing = dataclasses.replace(PLAN, removed={}, sizes={})
    assert Plan.from_json(nothing.to_json()) == nothing


def test_two_plans_can_be_compared_line_by_line() -> None:
    other = dataclasses.replace(PLAN, removed={**PLAN.removed, "first": [0, 3, 6]})
    pairs = list(zip(PLAN.to_json().splitlines(), other.to_json().splitlines(), strict=True))
    assert [(a.strip(), b.strip()) for a, b in pairs if a != b] == [
        ('"first": {"of": 32, "remove": [0, 3, 5]},', '"first": {"of": 32, "remove": [0, 3, 6]},')
    ]
    assert PLAN.to_json().endswith("}\n")
    assert json.loads(PLAN.to_json())["settings"]["allow_interface"] == ["past_*"]


def test_digest_is_of_structure_and_not_of_weights() -> None:
    assert digest_of(classifier(0)) == digest_of(classifier(1))
    assert digest_of(classifier()) != digest_of(classifier(hidden=16))
    renamed = classifier()
    next(iter(renamed.graph)).name = "other"
    assert digest_of(renamed) != digest_of(classifier())


def test_units() -> None:
    graph = graphopt.channels.analyze(classifier())
    units = dataclasses.replace(PLAN, removed={"second": [0, 31]}).units(graph)
    second = next(group for group in graph.groups if group.name == "second")
    assert units == [second.units[0].index, second.units[31].index]
    for removed in ({"third": [0]}, {"first": [32]}, {"first": [-1]}):
        with pytest.raises(UsageError, match="the model does not have"):
            dataclasses.replace(PLAN, removed=removed).units(graph)
    with pytest.raises(UsageError, match="of another model"):
        PLAN.units(graphopt.channels.analyze(classifier(hidden=16)))


@pytest.mark.parametrize(
    "change",
    [
        {"format": "x"},
        {"version": 3},
        {"settings": {"importance": "obs"}},
        {"settings": {"nonsense": 1, "allow_interface": []}},
        {"groups": []},
        {"groups": {"first": {"of": 32, "remove": "all"}}},
        {"goal": None, "groups": {"first": None}},
    ],
)
def test_what_is_no_plan(change: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(json.loads(PLAN.to_json()) | change))
    with pytest.raises(ModelError, match=r"plan\.json"):
        Plan.load(path)


def test_files(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        Plan.load(tmp_path / "missing.json")
    np.save(tmp_path / "plan.npy", np.zeros(3))
    with pytest.raises(ModelError):
        Plan.load(tmp_path / "plan.npy")
    with pytest.raises(SaveError):
        PLAN.save(tmp_path / "no" / "plan.json")


def test_a_group_of_another_size_is_refused() -> None:
    graph = graphopt.channels.analyze(classifier())
    with pytest.raises(UsageError, match="the model does not have"):
        dataclasses.replace(PLAN, removed={"first": [0]}, sizes={"first": 33}).units(graph)


@pytest.mark.parametrize("place", ["1.7", "Infinity", "true", '"3"', "null"])
def test_units_are_whole_numbers(place: str) -> None:
    text = PLAN.to_json().replace("[0, 3, 5]", f"[0, 3, {place}]")
    with pytest.raises(ModelError, match="no plan of graphopt's"):
        Plan.from_json(text)


@pytest.mark.parametrize(
    "settings", [{"threads": "x"}, {"batch": "8"}, {"optimize": 1}, {"seed": None}, {"importance": 3}, {"other": 1}]
)
def test_settings_have_the_kind_of_the_defaults(settings: dict[str, object]) -> None:
    data = json.loads(PLAN.to_json())
    data["settings"] |= settings
    with pytest.raises(ModelError, match="no plan of graphopt's"):
        Plan.from_json(json.dumps(data))
