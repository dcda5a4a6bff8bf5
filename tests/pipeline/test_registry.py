"""Finding passes by name."""

from __future__ import annotations

import pytest

from graphopt.errors import UsageError
from graphopt.pipeline import registry
from graphopt.pipeline.base import Safety


def test_own_passes_come_first_and_load() -> None:
    assert "graphopt_passes" in next(iter(registry.catalogue().values())).module
    for name in registry.catalogue():
        assert registry.load_class(name).name == name
    assert not registry.broken()


def test_unknown_pass_gets_a_suggestion() -> None:
    with pytest.raises(UsageError, match="Did you mean 'eliminate-identity'"):
        registry.create("eliminate-identities")


def test_skipping_a_pass_that_does_not_exist_is_a_mistake() -> None:
    with pytest.raises(UsageError, match="to skip"):
        registry.resolve(["default"], ["eliminate-everything"])


def test_presets_expand_in_place_and_skips_apply() -> None:
    names = [one.name for one in registry.resolve(["cleanup", "fold-constants:max-bytes=7"], ["eliminate-identity"])]
    assert "eliminate-identity" not in names
    assert names[:-1] == [name for name in registry.names_of_preset("cleanup") if name != "eliminate-identity"]
    assert names[-1] == "fold-constants"


def test_the_exact_preset_is_the_exact_part_of_the_default() -> None:
    exact = [one.name for one in registry.resolve(["default"]) if one.safety is Safety.EXACT]
    assert exact == registry.names_of_preset("exact")


def test_no_lossy_pass_is_in_a_preset() -> None:
    assert all(one.safety is not Safety.LOSSY for name in registry.presets() for one in registry.resolve([name]))
