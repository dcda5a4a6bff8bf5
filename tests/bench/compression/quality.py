"""How good the search is: what it chooses, against random plans that go through the same pipeline.

``python tests/bench/compression/quality.py [--plans 200] [--seed 0]``. The digits ResNet, float32, without
distillation: each random plan keeps a random share of each group, the least important units going first as in the
search, and is refitted, timed and judged on the same samples. A plan dominates the choice if it is better by more than
the margin in one of latency and accuracy, and no worse in the other. Every plan that was tried is kept in
``.zoo/compression``. Exit code 1 if one dominates.
"""

from __future__ import annotations

import argparse
import functools
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

ROOT = Path(__file__).parents[3]
if __name__ == "__main__":
    sys.path[:1] = [str(ROOT), str(ROOT / "passes"), str(ROOT / "tests")]

from bench.compression.cases import CASES, FOLDER  # noqa: E402
from bench.distillation.ledger import Figures, Ledger  # noqa: E402

import graphopt  # noqa: E402
from graphopt.compression.choosing import Chooser  # noqa: E402
from graphopt.compression.clock import Table  # noqa: E402
from graphopt.compression.points import Variant  # noqa: E402
from graphopt.compression.samples import draw  # noqa: E402
from graphopt.compression.settings import Settings  # noqa: E402
from graphopt.pruning.latency.measure import Stopwatch  # noqa: E402
from graphopt.pruning.plan import Plan  # noqa: E402

__all__ = ["main"]

_CASE: Final = "digits ResNet-8"
_GOALS: Final = (0.75, 0.6, 0.5)
MARGIN: Final = 0.02


class Pipeline:
    """What all plans go through."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.path, self.data, self.evaluation = CASES[_CASE].load(seed)
        model = graphopt.load(self.path)
        self.samples = draw(self.data, self.evaluation, model, seed=seed).final
        self.fit = draw(self.data, self.evaluation, model, seed=seed).fit.dataset
        self.optimized = folder / "optimized.onnx"
        graphopt.save(graphopt.optimize(model), self.optimized)
        table = Table({}, lambda text: None)
        settings = Settings(threads=1, seed=seed)
        quiet = lambda step, share: None  # noqa: E731
        self.chooser = Chooser(self.optimized, self.fit, {"macs": 0.5}, settings, folder / "pruning", table, quiet)
        feeds = next(self.samples.batches(1))
        self.watch = Stopwatch(self.path, feeds, threads=1, seed=seed)

    def judged(self, model: Any) -> Figures:
        """Latency and accuracy of a model."""
        from graphopt import runtime

        session = runtime.open_session(model, threads=1)
        outputs = np.concatenate([session.run(None, dict(feeds))[0] for feeds in self.samples.batches(64)])
        right = float((outputs.argmax(1) == self.samples.labels).mean())
        return {"latency": 1 / self.watch.ratio(model).value, "accuracy": right}

    def random(self, number: int) -> Figures:
        """The random plan of a number."""
        random = np.random.default_rng([7, number])
        template, _ = self.chooser.plan(Variant(0.5, "float32"))
        overall = random.uniform(0.15, 0.95)  # plans of all sizes, not only those about half
        removed, sizes = {}, {}
        for ranking in self.chooser.rankings():
            group, units = ranking.group, len(ranking.group.units)
            share = np.clip(overall + random.uniform(-0.3, 0.3), 0.1, 1.0)
            kept = max(8, 8 * round(share * units / 8)) if units >= 16 else max(1, round(share * units))
            places = {unit.index: place for place, unit in enumerate(group.units)}
            gone = sorted(places[int(unit)] for unit in ranking.order[: max(0, units - kept)])
            if gone:
                removed[group.name], sizes[group.name] = gone, units
        plan = Plan(template.model, template.goal, template.settings, template.data, removed, sizes)
        return self.judged(graphopt.prune(self.optimized, plan=plan, calibration=self.fit))

    def chosen(self, goal: float, seed: int) -> Figures:
        """What the search takes for a goal."""
        model, report = graphopt.compress(
            self.path,
            dict(self.data),
            evaluation=dict(self.evaluation or {}),
            goal={"latency": goal},
            skip=["distill", "quantize", "sensitivity"],
            threads=1,
            seed=seed,
            best_effort=True,
            with_report=True,
        )
        return self.judged(model) | {"met": report.is_met, "measured": report.point.left["latency"]}


def dominating(choice: Figures, plans: Sequence[Figures]) -> list[Figures]:
    """Plans that are better than a choice by more than the margin."""
    return [
        plan
        for plan in plans
        if (plan["latency"] <= choice["latency"] * (1 - MARGIN) and plan["accuracy"] >= choice["accuracy"])
        or (plan["latency"] <= choice["latency"] and plan["accuracy"] >= choice["accuracy"] + MARGIN)
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures what is not known yet, and says whether any plan dominates."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--plans", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    book = Ledger("quality", FOLDER)
    with tempfile.TemporaryDirectory() as folder:
        pipeline = Pipeline(options.seed, Path(folder))
        plans = [
            book.run({"seed": options.seed, "plan": number}, functools.partial(pipeline.random, number))
            for number in range(options.plans)
        ]
        worst = 0
        print("| goal | latency | accuracy, % | dominated by |\n|--:|--:|--:|--:|")
        for goal in _GOALS:
            choice = pipeline.chosen(goal, options.seed)
            better = dominating(choice, plans)
            worst = max(worst, len(better))
            figures = f"{choice['latency']:.3f} | {100 * choice['accuracy']:.2f}"
            print(f"| {goal:g} | {figures} | {len(better)} of {len(plans)} |", flush=True)
    return 1 if worst else 0


if __name__ == "__main__":
    sys.exit(main())
