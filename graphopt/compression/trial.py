"""Builds a variant and says how good it is: everything that may run in another process, on another machine.

A trial reads what it needs from the folder of the run, and leaves its models there. Latency is not measured here:
trials may run beside each other.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import onnx_ir as ir

from graphopt import io
from graphopt.compression.gates import Check, Limits
from graphopt.compression.judging import Judge
from graphopt.compression.metrics import classes
from graphopt.compression.points import Variant
from graphopt.compression.samples import Drawn, draw
from graphopt.compression.settings import PRECISIONS, Settings
from graphopt.compression.workspace import Workspace
from graphopt.errors import GraphoptError
from graphopt.pruning.report import Size

__all__ = ["Context", "Outcome", "Trial", "run"]

_STEPS: Final = 2500  # of training, about, where nobody says how many epochs
_EPOCHS: Final = (2, 20)


@dataclasses.dataclass(frozen=True)
class Trial:
    """Variants that share all but the precision, in the folder of a run."""

    folder: str
    variants: tuple[Variant, ...]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a variant.

    Attributes:
        variant: Which.
        size: What it costs.
        score: On the samples to choose by.
        lost: Of the original's score, as a share of it.
        drop: The same, in percentage points, or in the metric's own unit.
        complaint: The gate that it failed there, or why it could not be built; empty if all is well.
        broken: Whether it could not be built.
        grain: What one sample counts for in the score, where that is a share of right answers; else 0.
    """

    variant: Variant
    size: Size
    score: float
    lost: float
    drop: float
    complaint: str
    broken: bool = False
    grain: float = 0.0


class Context:
    """What all trials of a run share.

    Args:
        folder: Of the run.
        original: Path of the original.
        settings: How.
        data: To learn from, as :func:`~graphopt.compression.samples.draw` takes it.
        evaluation: To judge by.
        preprocess: What to do to both.
    """

    def __init__(
        self, folder: Path, original: Path, settings: Settings, data: Any, evaluation: Any, preprocess: str
    ) -> None:
        self.workspace = Workspace(folder)
        self.original = original
        self.settings = settings
        self._given = data, evaluation, preprocess

    @classmethod
    def open(cls, folder: str) -> Context:
        """The context of a run, from its folder."""
        return _opened(folder)

    @functools.cached_property
    def model(self) -> ir.Model:
        """The original."""
        return io.load(self.original)

    @functools.cached_property
    def drawn(self) -> Drawn:
        """The data, shared out."""
        data, evaluation, preprocess = self._given
        limits = self.settings.limits
        return draw(
            data,
            evaluation,
            self.model,
            slices=self.settings.slices,
            preprocess=preprocess,
            samples=self.settings.samples,
            balanced=any(one is not None for one in (limits.class_drop, limits.slice_drop, limits.gap)),
            seed=self.settings.seed,
        )

    def judge(self, samples: Any) -> Judge:
        """A judge of some samples."""
        settings = self.settings
        return Judge.of(
            self.original,
            self.model,
            samples,
            settings.limits,
            name=settings.metric,
            output=settings.output,
            provider=settings.provider,
            threads=settings.threads,
        )

    @functools.cached_property
    def chooser(self) -> Judge:
        """The judge of the samples to choose by."""
        return self.judge(self.drawn.choose)

    @functools.cached_property
    def referee(self) -> Judge:
        """The judge of the samples that nothing is chosen by."""
        return self.judge(self.drawn.final)

    @functools.cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of one run of one sample, or of as few as the model takes."""
        return self._shapes_of(1)

    def _shapes_of(self, batch: int) -> dict[str, tuple[int, ...]]:
        feeds = next(self.drawn.choose.batches(batch))
        return {name: tuple(array.shape) for name, array in feeds.items() if hasattr(array, "shape")}

    @functools.cached_property
    def _run(self) -> dict[str, tuple[int, ...]]:
        return self._shapes_of(self.settings.batch)

    def size(self, model: ir.Model) -> Size:
        """What a model costs; its memory is that of the run whose latency counts."""
        return Size.of(model, self.shapes, self._run)

    @property
    def optimized(self) -> Path:
        """The model after the default passes."""
        return self.workspace.folder / "optimized.onnx"

    # -- models ------------------------------------------------------------------------------------------------------

    def plan(self, variant: Variant) -> Path:
        """The file that says what goes."""
        return self.workspace.folder / "plans" / f"{variant.cut}.json"

    def pruned(self, variant: Variant) -> Path:
        """The model without what goes, refitted."""
        if variant.way == 0:
            return self.optimized
        plan = self.plan(variant)

        def make() -> ir.Model:
            import graphopt

            result: ir.Model = graphopt.prune(self.optimized, plan=plan, calibration=self.drawn.fit.dataset)
            return result

        return self.workspace.model(f"pruned/{variant.cut}", make)

    def trained(self, variant: Variant) -> Path:
        """The same after it has learnt from the original."""
        name = f"trained/{variant.cut}"
        return self.workspace.model(name, lambda: self._taught(self.pruned(variant), name))

    def _taught(self, student: Path, name: str, **more: Any) -> ir.Model:
        """A model after it has learnt from the original; checkpoints go into a folder of that name."""
        import graphopt

        settings, train = self.settings, self.drawn.train
        tuned = self.workspace.read("tuned.json") or {}
        result, report = graphopt.distill(
            self.optimized,
            student,
            train.dataset,
            loss=tuned.get("loss", settings.loss or None),
            augment=settings.augment,
            epochs=settings.epochs or epochs_for(len(train), settings.train_batch),
            batch=settings.train_batch,
            learning_rate=tuned.get("learning_rate", settings.learning_rate),
            seed=settings.seed,
            provider=settings.provider,
            threads=settings.threads,
            run_directory=self.workspace.folder / name,
            with_report=True,
            **more,
        )
        self.workspace.write(f"{name}-report.json", report.to_dict())
        found: ir.Model = result
        return found

    def variant(self, variant: Variant) -> Path:
        """A variant, ready to be used."""
        path = self.trained(variant) if variant.trained else self.pruned(variant)
        scheme = PRECISIONS[variant.precision]
        if not scheme:
            return path

        def make() -> ir.Model:
            import graphopt

            if scheme.startswith("convert-"):
                converted: ir.Model = graphopt.optimize(path, passes=[scheme], provider=self.settings.provider)
                return converted
            if scheme == "static" and variant.trained and self.settings.quantization_aware:
                return self._taught(path, f"aware/{variant.cut}", quantize=scheme)
            result: ir.Model = graphopt.quantize(
                path,
                self.drawn.fit.dataset,
                scheme=scheme,
                optimize=False,
                time=False,
                seed=self.settings.seed,
                provider=self.settings.provider,
                threads=self.settings.threads,
            )
            return result

        return self.workspace.model(f"variants/{variant.name}", make)


@functools.lru_cache(maxsize=2)
def _opened(folder: str) -> Context:
    """From the files that :mod:`graphopt.compression.job` leaves."""
    said = json.loads((Path(folder) / "trial.json").read_text(encoding="utf-8"))
    settings = dict(said["settings"])
    settings["limits"] = Limits(**settings["limits"])
    given: dict[str, Any] = {name: tuple(one) if isinstance(one, list) else one for name, one in settings.items()}
    return Context(
        Path(folder), Path(said["original"]), Settings(**given), said["data"], said["evaluation"], said["preprocess"]
    )


def epochs_for(samples: int, batch: int) -> int:
    """As many epochs as make for a few thousand steps, within reason."""
    fewest, most = _EPOCHS
    return max(fewest, min(most, round(_STEPS * batch / max(1, samples))))


def run(trial: Trial, context: Context | None = None) -> list[Outcome]:
    """Runs a trial; what is there from an earlier run is taken.

    A variant that cannot be built is an outcome, too: the search goes on with the others.
    """
    from threadpoolctl import threadpool_limits

    own = context or Context.open(trial.folder)
    # Sums come out a little different with other numbers of threads: the same everywhere, if they were named.
    with threadpool_limits(own.settings.threads):
        return [_outcome(own, one) for one in trial.variants]


def _outcome(context: Context, variant: Variant) -> Outcome:
    name = f"variants/{variant.name}.json"
    kept = context.workspace.read(name)
    if kept is not None:
        with contextlib.suppress(KeyError, TypeError):  # damaged: it is judged again
            return _from_dict(kept)
    try:
        path = context.variant(variant)
        found = _judged(context, variant, path)
    except GraphoptError as error:
        if variant.way == 0 and variant.precision == "float32":
            raise
        nothing = Size(0, 0, 0, 0, 0)
        # Not kept: the next run may have what was lacking.
        return Outcome(variant, nothing, -math.inf, math.inf, math.inf, error.message, broken=True)
    context.workspace.write(name, _to_dict(found))
    return found


def _judged(context: Context, variant: Variant, path: Path) -> Outcome:
    judge = context.chooser
    audit = judge.audit(path)
    first = audit.checks[0]
    base, after = judge.base, first.after
    lost = (base - after) * judge.metric.is_better / max(abs(base), 1e-30)
    failed = audit.failed
    complaint = described(failed[0]) if failed else _close_call(first, judge, path)
    size = context.size(io.load(path))
    if not math.isfinite(after):
        return Outcome(variant, size, -math.inf, math.inf, math.inf, complaint or f"{first.name}: {after}")
    grain = 1 / max(1, len(judge.truth)) if judge.counts_classes else 0.0
    return Outcome(variant, size, after * judge.metric.is_better, lost, first.harm, complaint, grain=grain)


def _close_call(check: Check, judge: Judge, path: Path) -> str:
    """Whether a drop is within its limit only by the luck of the draw: closer to it than a standard error.

    Other samples would fail it as often as not. Only where samples are right or wrong.
    """
    if check.limit is None or check.harm <= 0 or not judge.counts_classes:
        return ""
    truth = judge.truth
    old, new = (classes(one, truth) == truth for one in (judge.before, judge.outputs(path)))
    error = 100 * float((old.astype(int) - new).std()) / math.sqrt(max(1, old.size))
    if check.harm + error <= check.limit:
        return ""
    return f"{check.name}: {check.harm:.3g} ± {error:.2g} lost, {check.limit:.3g} allowed"


def described(check: Check) -> str:
    """A failed gate in a few words."""
    where = f" {check.where}" if check.where else ""
    return (
        f"{check.name}{where} {check.before:.4g} to {check.after:.4g}, {check.harm:.3g} lost, {check.limit:.3g} allowed"
    )


def _to_dict(outcome: Outcome) -> dict[str, Any]:
    return dataclasses.asdict(outcome)


def _from_dict(data: Mapping[str, Any]) -> Outcome:
    return Outcome(
        Variant(**(data["variant"] | {"sizes": tuple(map(tuple, data["variant"]["sizes"]))})),
        Size(**data["size"]),
        *(data[name] for name in ("score", "lost", "drop", "complaint", "broken", "grain")),
    )
