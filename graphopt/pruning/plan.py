"""What a pruning decided, as a file: which units went, and everything else that the result depends on."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from graphopt import io
from graphopt.errors import ModelError, UsageError
from graphopt.version import __version__

if TYPE_CHECKING:
    from graphopt.channels.groups import ChannelGraph

__all__ = ["Plan", "Settings", "digest_of", "digest_of_weights"]

_FORMAT = "graphopt-plan"
_VERSION = 2


@dataclasses.dataclass(frozen=True)
class Settings:
    """What, besides the model and the data, decides on the result.

    Attributes:
        importance: Name of the criterion; empty where a function of the caller's ranked.
        ranking: Who is compared with whom.
        granularity: ``heads`` or ``head-dim``.
        allow_interface: Patterns of inputs and outputs that may shrink.
        steps: In how many steps the units were chosen.
        optimize: Whether the model is optimized first.
        reconstruct: Whether what is left is refitted.
        polish: Epochs of training to the original's outputs.
        samples: Calibration samples; 0 until it is known how many are affordable.
        batch: Samples of one run.
        seed: Of all that is random.
        provider: Execution provider of the calibration.
        threads: Its threads; ``None`` leaves it to ONNX Runtime.
    """

    importance: str = "obs"
    ranking: str = "global"
    granularity: str = "heads"
    allow_interface: tuple[str, ...] = ()
    steps: int = 1
    optimize: bool = True
    reconstruct: bool = True
    polish: int = 0
    samples: int = 0
    batch: int = 64
    seed: int = 0
    provider: str = "cpu"
    threads: int | None = None


@dataclasses.dataclass(frozen=True)
class Plan:
    """A decision that can be carried out again, to the same bytes.

    Attributes:
        model: Digest of the structure of the model; the weights may be others.
        goal: What was to be reached, as text.
        settings: How.
        data: Digest of the calibration inputs; empty without any.
        removed: For each group that shrinks, which of its units go, by their place in the group.
        sizes: For each such group, how many units it has.
        blocks: Names of residual blocks that go as a whole.
    """

    model: str
    goal: str
    settings: Settings
    data: str
    removed: Mapping[str, Sequence[int]]
    sizes: Mapping[str, int]
    blocks: tuple[str, ...] = ()

    def units(self, graph: ChannelGraph) -> list[int]:
        """The units that go, by their number in the graph.

        Raises:
            UsageError: The plan is of another model.
        """
        if digest_of(graph.model) != self.model:
            raise UsageError(
                "the plan is of another model: its operators, names or shapes differ",
                hint="Give the model that the plan was made for; only its weights may have changed.",
            )
        groups = {group.name: group for group in graph.groups}
        found: list[int] = []
        for name, places in self.removed.items():
            group = groups.get(name)
            size = 0 if group is None else len(group.units)
            if group is None or size != self.sizes.get(name, size) or any(not 0 <= place < size for place in places):
                raise UsageError(
                    f"the plan takes units out of '{name}' that the model does not have",
                    hint="The plan was changed by hand, or made by another version.",
                )
            found += [group.units[place].index for place in places]
        return found

    def to_json(self) -> str:
        """The plan as text, a line for each group, so that two plans can be compared line by line."""
        data = {
            "format": _FORMAT,
            "version": _VERSION,
            "graphopt": __version__,
            "model": self.model,
            "goal": self.goal,
            "data": self.data,
            "settings": dataclasses.asdict(self.settings),
            "blocks": list(self.blocks),
        }
        head = json.dumps(data, indent=2)[:-2]
        lines = [
            f'    {json.dumps(name)}: {{"of": {self.sizes[name]}, "remove": {json.dumps(list(places))}}}'
            for name, places in self.removed.items()
        ]
        groups = ",\n".join(lines)
        return f'{head},\n  "groups": {{\n{groups}\n  }}\n}}\n' if lines else f'{head},\n  "groups": {{}}\n}}\n'

    @classmethod
    def from_json(cls, text: str, where: str = "the plan") -> Plan:
        """Reads what :meth:`to_json` wrote.

        Raises:
            ModelError: It is no plan, or one of a later version.
        """
        try:
            data = json.loads(text)
            if data["format"] != _FORMAT:
                raise KeyError("format")
            if not 1 <= _whole(data["version"]) <= _VERSION:
                raise ModelError(
                    f"{where} has version {data['version']}, this graphopt reads up to {_VERSION}",
                    hint=f"It was made by graphopt {data.get('graphopt')}.",
                )
            settings = dict(data["settings"])
            settings["allow_interface"] = tuple(settings["allow_interface"])
            groups = {str(name): one for name, one in data["groups"].items()}
            return cls(
                str(data["model"]),
                str(data["goal"]),
                _settings(settings),
                str(data["data"]),
                {name: [_whole(place) for place in one["remove"]] for name, one in groups.items()},
                {name: _whole(one["of"]) for name, one in groups.items()},
                _names(data.get("blocks", [])),  # there were none in version 1
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"{where} is no plan of graphopt's: {error}") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the file, all of it or nothing.

        Raises:
            SaveError: It cannot be written.
        """
        io.write_text(path, self.to_json())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Plan:
        """Reads a file.

        Raises:
            ModelError: It cannot be read, or is no plan.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ModelError(f"{path}: cannot be read: {error}") from error
        return cls.from_json(text, str(path))


def _names(given: object) -> tuple[str, ...]:
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
        raise TypeError(f"{given!r} is no list of names")
    return tuple(given)


def _whole(number: object) -> int:
    if not isinstance(number, int) or isinstance(number, bool):
        raise TypeError(f"{number!r} is no whole number")
    return number


def _settings(given: Mapping[str, Any]) -> Settings:
    """Settings whose values are of the kind of the defaults."""
    settings = Settings(**given)
    for field in dataclasses.fields(Settings):
        value = getattr(settings, field.name)
        if field.name == "threads" and value is None:
            continue
        kind = int if field.name == "threads" else type(field.default)
        if type(value) is not kind:
            raise TypeError(f"{field.name} cannot be {value!r}")
    return settings


def digest_of(model: ir.Model) -> str:
    """A digest of a model's structure: operators, names, shapes and dtypes, but no weights."""
    found = hashlib.sha256()

    def note(*parts: object) -> None:
        found.update("\0".join(map(str, parts)).encode("utf-8", "surrogatepass") + b"\n")

    for value in (*model.graph.inputs, *model.graph.outputs):
        note(value.name, value.type, value.shape)
    for name, value in sorted(model.graph.initializers.items()):
        tensor = value.const_value
        note(name, *(() if tensor is None else (tensor.dtype, tensor.shape)))
    for node in model.graph:
        names = [value.name if value is not None else "" for value in (*node.inputs, *node.outputs)]
        note(node.domain, node.op_type, node.name, *names, *sorted(node.attributes))
    return found.hexdigest()


def digest_of_weights(model: ir.Model) -> str:
    """A digest of all that :func:`digest_of` leaves out: weights, attributes and bodies, as they would be saved."""
    found = hashlib.sha256()
    for _, value in sorted(model.graph.initializers.items()):
        if value.const_value is not None:
            found.update(value.const_value.tobytes())
    for node in model.graph:
        for _, attribute in sorted(node.attributes.items()):
            found.update(ir.to_proto(attribute).SerializeToString(deterministic=True))
    return found.hexdigest()
