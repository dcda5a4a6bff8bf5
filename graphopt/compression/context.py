"""What all trials of a compression share: the data, the judges, and the models that are built one from another."""

from __future__ import annotations

import functools
import glob
import json
from pathlib import Path
from typing import Any, Final

import onnx_ir as ir

from graphopt import io
from graphopt.compression.gates import Limits
from graphopt.compression.judging import Judge
from graphopt.compression.points import Variant
from graphopt.compression.samples import Drawn, draw
from graphopt.compression.settings import PRECISIONS, Settings
from graphopt.compression.workspace import LATENCIES, Workspace
from graphopt.errors import Infeasible, ModelError
from graphopt.pruning.layers import find_layers
from graphopt.pruning.report import Size

__all__ = ["Context", "epochs_for"]

_STATIC: Final = "static"
_MOST_LAYERS: Final = 64  # each of which is timed alone
_STEPS: Final = 6000  # of training, about, where nobody says how many epochs
_EPOCHS: Final = (2, 60)


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
        if variant.is_whole:
            return self.optimized
        plan = self.plan(variant)

        def make() -> ir.Model:
            import graphopt

            result: ir.Model = graphopt.prune(self.optimized, plan=plan, calibration=self.drawn.fit.dataset)
            if variant.blocks and "optimize" not in self.settings.skip:
                result = graphopt.optimize(result)  # what stood around a block may now fold, as Relu of Relu
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
            if scheme == _STATIC and variant.trained and self.settings.quantization_aware:
                return self._taught(path, f"aware/{variant.cut}", quantize=scheme)
            result: ir.Model = graphopt.quantize(
                path,
                self.drawn.calibrate.dataset,
                scheme=scheme,
                exclude=self._floats(path) if scheme == _STATIC else (),
                optimize=False,
                time=False,
                **self._running,
            )
            return result

        return self.workspace.model(f"variants/{variant.name}", make)

    @property
    def _running(self) -> dict[str, Any]:
        settings = self.settings
        return {"seed": settings.seed, "provider": settings.provider, "threads": settings.threads}

    def slow_layers(self) -> list[str]:
        """Layers of the optimized model that had better stay float: slower in int8, measured here, or too far off."""
        import graphopt

        if len(list(find_layers(io.load(self.optimized).graph))) > _MOST_LAYERS:
            return []
        try:
            _, report = graphopt.quantize(
                self.optimized,
                self.drawn.calibrate.dataset,
                scheme=_STATIC,
                optimize=False,
                faster=True,
                time=False,
                with_report=True,
                **self._running,
            )
        except (Infeasible, ModelError):
            return []  # the variants themselves say why
        return [one.name for one in report.layers if not one.quantized]

    def _floats(self, model: Path) -> list[str]:
        """Patterns of a model's layers that stay float."""
        from graphopt.quantization.normalizing import normalize

        named = io.load(model)
        normalize(named)  # a node without a name gets the one by which quantization knows it
        there = {str(layer.node.name) for layer in find_layers(named.graph)}
        kept = there.intersection((self.workspace.read(LATENCIES) or {}).get("floats") or ())
        return sorted(map(glob.escape, kept)) if kept < there else []  # of nothing else there would be no int8


@functools.lru_cache(maxsize=2)
def _opened(folder: str) -> Context:
    """From the files that :mod:`graphopt.compression.compressor` leaves."""
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
