"""What each operator of a model takes at each number of channels: measured once, saved, looked up thousands of times.

The JSON form; milliseconds, and ``null`` where ONNX Runtime does not run the operator alone::

    {
      "schema": "graphopt.latency/1",
      "environment": {"onnxruntime": "1.31.1", "device": "AMD EPYC", "cores": 2},
      "settings": {"provider": "CPUExecutionProvider", "threads": 1, "batch": 1, "shapes": {"x": [1, 3, 224, 224]},
                   "multiples": {"conv": 16, "matmul": 16}, "seed": 0, "model": "3f0a..."},
      "whole": {"milliseconds": 75.6, "shares": {"product": 0.993, "other": 0.007}, "overhead": 0.4,
                "undisturbed": 0.99},
      "operators": {"Conv-17[group=1 ...](float 1x64x56x56, =float 64x64x3x3, =float 64)->y": 1.98, ...}
    }
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphopt import io, runtime
from graphopt.errors import ModelError, UsageError
from graphopt.pruning.latency import grid
from graphopt.pruning.latency.alignment import preferred_multiple
from graphopt.pruning.latency.meter import Meter
from graphopt.pruning.latency.products import Counts, Site, Sizes, sites
from graphopt.pruning.latency.whole import (
    Whole,
    first_that_runs,
    machine,
    shapes_of,
    summarize,
    weight_bytes,
    whole_seconds,
)

if TYPE_CHECKING:
    from graphopt.channels.groups import ChannelGraph
    from graphopt.verify.feeds import Feeds

__all__ = ["LatencyTable", "Progress", "Settings", "Whole"]

SCHEMA = "graphopt.latency/1"
Progress = Callable[[str, float], None]
"""Called with what is going on and the fraction of the whole done, from 0 to 1."""

_BUSY = 0.75
_HINT = "Measure a table of its own with LatencyTable.measure."


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a table was measured of, and how; it is of use for nothing else.

    Attributes:
        provider: ONNX Runtime's name of the execution provider.
        threads: Intra-op threads; ``None`` where ONNX Runtime chose.
        batch: The leading extent of the first input.
        shapes: Of every input, by its name.
        multiples: Of channels that the provider likes, by ``conv`` and ``matmul``.
        seed: Of weights and inputs.
        model: A digest of the model's products at these shapes; weights do not count.
    """

    provider: str
    threads: int | None
    batch: int | None
    shapes: Mapping[str, Sequence[int]]
    multiples: Mapping[str, int]
    seed: int
    model: str


@dataclasses.dataclass
class LatencyTable:
    """Times of operators, by the text of :class:`~graphopt.pruning.latency.micro.Operator`.

    Attributes:
        settings: What it is of.
        machine: Where it was measured: version of ONNX Runtime, device, cores.
        whole: Of the whole model.
        operators: Milliseconds; ``None`` where ONNX Runtime does not run the operator alone.
    """

    settings: Settings
    machine: Mapping[str, Any]
    whole: Whole
    operators: dict[str, float | None]

    @classmethod
    def measure(
        cls,
        graph: ChannelGraph,
        shapes: Mapping[str, Sequence[int]] | None = None,
        *,
        feeds: Feeds | None = None,
        provider: str = "cpu",
        threads: int | None = None,
        seed: int = 0,
        max_seconds: float = 90.0,
        table: LatencyTable | None = None,
        progress: Progress | None = None,
    ) -> LatencyTable:
        """Measures a model's products, one by one, on ever finer grids of kept channels.

        Args:
            graph: The model's channels.
            shapes: Of inputs, by name; the rest is guessed as for validation.
            feeds: What to feed the whole model; decides about shapes, too.
            provider: An execution provider, as everywhere.
            threads: Intra-op threads; ``None`` leaves it to ONNX Runtime.
            seed: Of weights and inputs.
            max_seconds: After which the grid stays as fine as it is; every product is timed at full size whatever that
                takes.
            table: One of the same model, settings and machine, which is continued (in place).
            progress: Called between measurements.

        Raises:
            UsageError: ``shapes`` contradicts the model, or ``table`` is of something else: it says of what.
            ModelError: The model does not run at these shapes.
            EnvironmentProblem: The provider is missing.
        """
        deadline = time.monotonic() + max_seconds
        report = progress or (lambda what, fraction: None)
        report("finding what the provider likes", 0.0)
        execution_provider = runtime.resolve_provider(provider)
        meter = Meter(execution_provider, threads, sweep=weight_bytes(graph), seed=seed)
        whole = None if table is None else table.whole
        if table is not None and shapes is None and feeds is None:
            full = {name: list(shape) for name, shape in table.settings.shapes.items()}
        elif feeds is not None:
            full = shapes_of(feeds)
        else:
            report("timing the whole model", 0.0)
            feeds, whole = first_that_runs(graph, shapes, meter, seed, max_seconds)
            full = shapes_of(feeds)
        sizes = Sizes(graph, full)
        multiples = table.settings.multiples if table else _multiples(graph, execution_provider, threads)
        own = sites(sizes, multiples)
        batch = next((shape[0] for shape in full.values() if shape), None)
        settings = Settings(execution_provider, threads, batch, full, dict(multiples), seed, _digest(own))
        here = machine(execution_provider)
        if table is not None:
            table._check(settings, here)
        else:
            if whole is None:
                report("timing the whole model", 0.0)
                whole = summarize(meter.whole(graph.model, feeds or {}, whole_seconds(max_seconds)))
            if whole.undisturbed < _BUSY and threads != 1:
                warnings.warn(
                    f"other processes took {1 - whole.undisturbed:.0%} of the time of what was measured, so latencies "
                    f"are rough; threads=1 is measured well on a busy machine, too",
                    stacklevel=2,
                )
            table = cls(settings, here, whole, {})
        table._fill(own, meter, deadline, report)
        return table

    def _check(self, settings: Settings, machine: Mapping[str, Any]) -> None:
        """Raises UsageError that says in what the table is of something else."""
        ours = {**dataclasses.asdict(self.settings), **self.machine}
        theirs = {**dataclasses.asdict(settings), **machine}
        found = [f"{key} is {ours.get(key)}, not {theirs[key]}" for key in theirs if ours.get(key) != theirs[key]]
        if found:
            raise UsageError(f"the latency table is of something else: {'; '.join(found)}", hint=_HINT)

    def check(self, graph: ChannelGraph) -> tuple[Sizes, list[Site]]:
        """The sizes and products of a model, once it is certain that the table is of it and of this machine.

        Raises:
            UsageError: It is not.
        """
        try:
            sizes = Sizes(graph, self.settings.shapes)
        except UsageError as error:
            raise UsageError(f"the latency table is of another model: {error.message}", hint=_HINT) from error
        own = sites(sizes, self.settings.multiples)
        settings = dataclasses.replace(self.settings, model=_digest(own))
        self._check(settings, machine(self.settings.provider))
        return sizes, own

    def time(self, site: Site, counts: Counts) -> float | None:
        """Milliseconds of a product when so many places of its factors are kept; ``None`` where not measured."""
        operator = site.operator(counts)
        return None if operator is None else self.operators.get(str(operator))

    # -- measuring ---------------------------------------------------------------------------------------------------

    def _fill(self, own: Sequence[Site], meter: Meter, deadline: float, report: Progress) -> None:
        """Measures what is missing, coarse grids first, until time is up."""
        stages: list[list[tuple[Site, dict[int, int]]]] = [
            [(site, counts) for site in own for counts in grid.points(site, depth)] for depth in (0, 1)
        ]
        stages.append([(site, counts) for site in own for _, counts in grid.off_points(site)])
        stages += [
            [(site, counts) for site in own for counts in grid.points(site, depth)]
            for depth in range(2, grid.DEEPEST + 1)
        ]
        total = len(stages)
        for number, stage in enumerate(stages):
            for at, (site, counts) in enumerate(stage):
                if time.monotonic() >= deadline and number:
                    report("measuring operators", 1.0)
                    return
                report("measuring operators", (number + at / len(stage)) / total)
                self._measure(site, counts, meter)
        report("measuring operators", 1.0)

    def _measure(self, site: Site, counts: Counts, meter: Meter) -> None:
        operator = site.operator(counts)
        if operator is not None and str(operator) not in self.operators:
            taken = meter.milliseconds(operator)
            self.operators[str(operator)] = None if taken is None else round(taken, 6)

    # -- saving ------------------------------------------------------------------------------------------------------

    def to_json(self) -> str:
        """The JSON form that the module's page documents."""
        content = {
            "schema": SCHEMA,
            "environment": dict(self.machine),
            "settings": dataclasses.asdict(self.settings),
            "whole": dataclasses.asdict(self.whole),
            "operators": dict(sorted(self.operators.items())),
        }
        return json.dumps(content, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> LatencyTable:
        """The table that :meth:`to_json` wrote.

        Raises:
            ModelError: It is none, or one of another version.
        """
        try:
            content = json.loads(text)
            if content["schema"] != SCHEMA:
                raise ModelError(f"this is no {SCHEMA} but {content['schema']!r}", hint=_HINT)
            operators = {str(key): None if one is None else float(one) for key, one in content["operators"].items()}
            return cls(
                Settings(**content["settings"]), dict(content["environment"]), Whole(**content["whole"]), operators
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ModelError(f"this is no latency table: {error}", hint=_HINT) from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the table.

        Raises:
            SaveError: It cannot be written.
        """
        io.write_text(path, self.to_json())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> LatencyTable:
        """Reads a table.

        Raises:
            ModelError: It cannot be read, or is none.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeError) as error:
            raise ModelError(f"cannot read the latency table {os.fspath(path)!r}: {error}") from error
        return cls.from_json(text)


def _multiples(graph: ChannelGraph, provider: str, threads: int | None) -> dict[str, int]:
    """Of the kinds of products that the model has; 1 for the others."""
    kinds = {"conv" if "Conv" in product.node.op_type else "matmul" for product in graph.linker.products}
    return {
        "conv": preferred_multiple(provider, threads, "conv") if "conv" in kinds else 1,
        "matmul": preferred_multiple(provider, threads, "matmul") if "matmul" in kinds else 1,
    }


def _digest(own: Sequence[Site]) -> str:
    return hashlib.sha256("\n".join(_lines(own)).encode()).hexdigest()[:16]


def _lines(own: Sequence[Site]) -> Iterator[str]:
    """Each product at full size, and what of it can shrink."""
    for site in own:
        factors = " ".join(f"{factor.size}" for factor in site.factors)
        yield f"{site.times} {site.operator({}) or site.node.op_type} {factors}"
