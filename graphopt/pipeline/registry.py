"""Finds passes by name. Packages declare them through the entry-point group ``graphopt.passes``.

An entry point of that group loads a *catalogue*: a mapping from the pass's kebab-case name to an :class:`Entry`. The
order of a catalogue is the order in which a preset runs. graphopt's own passes come this way too.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.metadata
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from graphopt.errors import EnvironmentProblem, UsageError
from graphopt.pipeline import spec as specs

if TYPE_CHECKING:
    from graphopt.pipeline.base import Pass

__all__ = ["GROUP", "Entry", "broken", "catalogue", "create", "load_class", "names_of_preset", "presets", "resolve"]

GROUP = "graphopt.passes"


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """Where a pass lives; nothing is imported until it is used.

    Attributes:
        module: Dotted name of its module.
        class_name: The class in it.
        presets: The presets it belongs to.
    """

    module: str
    class_name: str
    presets: tuple[str, ...] = ()


@functools.cache
def _load() -> tuple[dict[str, Entry], dict[str, str]]:
    found: dict[str, Entry] = {}
    failed: dict[str, str] = {}
    points = importlib.metadata.entry_points(group=GROUP)
    for point in sorted(points, key=lambda one: (one.name != "graphopt", one.name)):
        try:
            declared: Mapping[str, Entry] = point.load()
        except (ImportError, AttributeError, SyntaxError) as error:
            failed[f"{point.name} ({point.value})"] = f"{type(error).__name__}: {error}"
            continue
        for name, entry in declared.items():
            if name in found:
                failed[f"{point.name} ({point.value})"] = f"pass '{name}' is declared by another package already"
            found.setdefault(name, entry)
    return found, failed


def catalogue() -> Mapping[str, Entry]:
    """All passes by name, graphopt's own first."""
    return _load()[0]


def broken() -> Mapping[str, str]:
    """Entry points that could not be loaded, with the reason; ``graphopt doctor`` prints them."""
    return _load()[1]


def load_class(name: str) -> type[Pass]:
    """Imports the class of the pass called ``name``.

    Raises:
        UsageError: No pass has this name.
        EnvironmentProblem: Its package is installed but broken.
    """
    known = catalogue()
    if name not in known:
        hint = specs.close_match(name, known) if known else ""
        if broken():
            hint += " Some pass packages failed to load; see 'graphopt doctor'."
        raise UsageError(f"there is no pass '{name}'", hint=hint or "No pass package is installed.")
    entry = known[name]
    try:
        found: type[Pass] = getattr(importlib.import_module(entry.module), entry.class_name)
    except (ImportError, AttributeError) as error:
        raise EnvironmentProblem(
            f"pass '{name}' cannot be loaded from {entry.module}: {error}", hint="Reinstall the package that has it."
        ) from error
    return found


def create(spec: str) -> Pass:
    """Makes a pass from a spec such as ``fold-constants:max-bytes=4096``.

    Raises:
        UsageError: Unknown name or option.
    """
    name, raw = specs.parse(spec)
    pass_class = load_class(name)
    return pass_class(**specs.options(pass_class, raw))


def presets() -> list[str]:
    """Names of all presets that some pass belongs to, in order of appearance."""
    return list(dict.fromkeys(preset for entry in catalogue().values() for preset in entry.presets))


def names_of_preset(preset: str) -> list[str]:
    """The passes of a preset, in the order they run."""
    return [name for name, entry in catalogue().items() if preset in entry.presets]


def resolve(wanted: Iterable[str | Pass], skip: Iterable[str] = ()) -> list[Pass]:
    """Makes the passes that ``wanted`` names: specs, presets or pass objects, without those in ``skip``.

    Raises:
        UsageError: Unknown names, in ``wanted`` or in ``skip``.
    """
    skipped = set(specs.split(skip))
    for name in skipped:
        if name not in catalogue():
            raise UsageError(f"there is no pass '{name}' to skip", hint=specs.close_match(name, catalogue()))
    known_presets = presets()
    chosen: list[Pass] = []
    for item in wanted:
        if not isinstance(item, str):
            chosen.append(item)
            continue
        for spec in specs.split([item]):
            expanded = names_of_preset(spec) if spec in known_presets else [spec]
            chosen.extend(create(one) for one in expanded if one.partition(":")[0] not in skipped)
    return [one for one in chosen if one.name not in skipped]
