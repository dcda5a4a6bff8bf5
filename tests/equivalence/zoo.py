"""The real models: those that ship, and more of them where a shared folder lies beside the checkout."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Entry", "entries", "shipped"]

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "models"


@dataclasses.dataclass(frozen=True)
class Entry:
    """A model of a manifest.

    Attributes:
        name: Its name.
        path: The file.
        inputs: Name, dtype, shape and value generator of each input, as in the manifest.
    """

    name: str
    path: Path
    inputs: Sequence[Mapping[str, Any]]

    def feeds(self, seed: int = 0) -> dict[str, npt.NDArray[Any]]:
        """Seeded inputs, made as the manifest says."""
        random = np.random.default_rng(seed)
        return {
            one["name"]: _values(one.get("values") or one["gen"], one["shape"], random).astype(one["dtype"])
            for one in self.inputs
        }

    @property
    def shapes(self) -> dict[str, list[int]]:
        """Concrete input shapes."""
        return {one["name"]: list(one["shape"]) for one in self.inputs}


def _values(rule: str, shape: Sequence[int], random: np.random.Generator) -> npt.NDArray[Any]:
    kind, _, argument = rule.partition(":")
    if kind == "int":
        low, high = (int(part) for part in argument.split(","))
        return random.integers(low, high, shape)
    if kind == "const":
        return np.full(shape, float(argument))
    if kind == "rand":
        return random.random(shape)
    return random.standard_normal(shape) * (float(argument) if kind == "scale" else 1.0)


def shipped() -> list[Entry]:
    """The models of this repository."""
    listed = tomllib.loads((ROOT / "models" / "manifest.toml").read_text("utf-8"))["model"]
    return [Entry(one["name"], ROOT / "models" / one["file"], one["inputs"]) for one in listed]


def entries() -> list[Entry]:
    """The shipped models, and those of the shared folder that do not ship."""
    found = {one.name: one for one in shipped()}
    manifest = SHARED / "manifest.json"
    if manifest.exists():
        for one in json.loads(manifest.read_text("utf-8")):
            found.setdefault(one["name"], Entry(one["name"], SHARED / one["file"], one["inputs"]))
    return list(found.values())
