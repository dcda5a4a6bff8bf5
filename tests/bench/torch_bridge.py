"""graphopt's modules beside onnx2torch's, and beside networks written by hand: cases, time and memory of a step.

``python tests/bench/torch_bridge.py`` prints all of it, ``--only`` a part. A step is one pass forward and one backward;
steps that are compared take turns, and the fastest of each counts. Memory is the peak of what torch's allocator has
handed out during a step.
"""

from __future__ import annotations

import argparse
import collections
import functools
import math
import sys
import time
import types
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

ROOT = Path(__file__).parents[2]
if __name__ == "__main__":
    sys.path[:1] = [str(ROOT), str(ROOT / "passes"), str(ROOT / "tests")]

from bench import torch_networks as networks  # noqa: E402
from torch_bridge import node_cases  # noqa: E402

import graphopt  # noqa: E402
import graphopt.torch as bridge  # noqa: E402

FUSIONS = ["fuse-gelu", "fuse-layer-norm", "fuse-attention"]
_PASSES = ["default", *FUSIONS]
PIECES: Mapping[str, Mapping[str, Any]] = {
    "Gelu of Erf": {"gelu": networks.gelu_of_erf},
    "Gelu of Tanh": {"gelu": networks.gelu_of_tanh},
    "LayerNormalization of means": {"norm": networks.MeansNorm},
    "Attention of a Softmax": {"attention": networks.softmax_attention},
    "all three": {
        "gelu": networks.gelu_of_erf,
        "norm": networks.MeansNorm,
        "attention": networks.softmax_attention,
    },
}
"""Of which parts an encoder is in pieces."""

Step = Callable[[], object]


def step_of(module: nn.Module, x: Tensor) -> Step:
    """One pass forward and one backward."""

    def step() -> None:
        module.zero_grad(set_to_none=True)
        found = module(x)
        output = found[0] if isinstance(found, tuple) else found
        output.square().mean().backward()

    return step


def time_ratios(steps: Sequence[Step], rounds: int) -> list[float]:
    """The time of each step as a share of that of the first: of the fastest of each."""
    for step in steps:
        step()
        step()
    fastest = [math.inf] * len(steps)
    for _ in range(rounds):
        for place, step in enumerate(steps):
            start = time.perf_counter()
            step()
            fastest[place] = min(fastest[place], time.perf_counter() - start)
    return [one / fastest[0] for one in fastest]


def peak(step: Step) -> int:
    """Bytes that are held at once during a step, beyond what was held before."""
    step()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        step()
    held = most = 0
    for event in recorded.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


def onnx2torch() -> tuple[types.ModuleType | None, str]:
    """The package, and what is to be said about it."""
    try:
        import onnx2torch as found
    except ImportError as error:
        return None, f"onnx2torch is missing ({error}); `make peers` installs it"
    except RuntimeError as error:  # a torchvision for another build of torch
        return None, f"onnx2torch does not load: {error}"
    return found, f"onnx2torch {getattr(found, '__version__', '')}".strip()


def with_onnx2torch(package: types.ModuleType) -> Callable[[Any], Sequence[Any]]:
    """Runs node cases in it."""

    def execute(case: Any) -> Sequence[Any]:
        given = node_cases.inputs(case)
        outputs = package.convert(case.model)(*(given[value.name] for value in case.model.graph.input))
        return outputs if isinstance(outputs, list | tuple) else [outputs]

    return execute


def cases(package: types.ModuleType | None) -> None:
    """Prints how many node cases agree with ONNX Runtime."""
    ran, failures = node_cases.score()
    print(f"graphopt: {ran - len(failures)} of {ran} node cases that ONNX Runtime runs ({1 - len(failures) / ran:.1%})")
    if package is None:
        return
    _, others = node_cases.score(with_onnx2torch(package))
    print(f"onnx2torch: {ran - len(others)} of {ran} ({1 - len(others) / ran:.1%})")
    print(f"  passed by onnx2torch alone: {sorted(set(failures) - set(others)) or 'none'}")
    for why, count in collections.Counter(text.split(":")[0] for text in others.values()).most_common(5):
        print(f"  {count:4} fail with {why}")


def steps(package: types.ModuleType | None, rounds: int) -> None:
    """Prints what a step of training takes, as a share of the network written by hand."""
    torch.manual_seed(0)
    for name, network, x in (
        ("ResNet-18, half width, batch 16", networks.ResNet(), torch.randn(16, 3, 64, 64)),
        ("BERT, 4 layers of 256, batch 8 of 128", networks.Encoder(), torch.randn(8, 128, 256)),
    ):
        model = networks.export(network, x)
        made: dict[str, nn.Module] = {"hand-written": network.train(), "graphopt": bridge.from_onnx(model).train()}
        if package is not None:
            made |= _converted(package, network, x)
        _print_table(name, made, x, rounds)


def _converted(package: types.ModuleType, network: nn.Module, x: Tensor) -> dict[str, nn.Module]:
    """The network by onnx2torch, from the newest opset of the older exporter that it takes."""
    for opset in (17, 14, 13):
        try:
            model = networks.export(network, x, exporter="legacy", opset=opset)
            made: nn.Module = package.convert(model).train()
            made(x)
        except Exception as error:  # noqa: BLE001 -- what it raises is a line of the table
            print(f"  onnx2torch fails at opset {opset}: {type(error).__name__}: {str(error)[:100]}")
            continue
        return {f"onnx2torch, opset {opset}": made, f"graphopt, opset {opset}": bridge.from_onnx(model).train()}
    return {}


def pieces(rounds: int) -> None:
    """Prints what a step takes if operators are in pieces, before and after the passes that put them together."""
    torch.manual_seed(0)
    x = torch.randn(8, 128, 256)
    whole = bridge.from_onnx(networks.export(networks.Encoder(), x)).train()
    for name, parts in PIECES.items():
        model = networks.export(networks.Encoder(**parts), x)
        fused = graphopt.optimize(model, passes=_PASSES, validate=False)
        made = {
            "in single operators": whole,
            f"in pieces, {_nodes(model)}": bridge.from_onnx(model).train(),
            f"put together, {_nodes(fused)}": bridge.from_onnx(fused).train(),
        }
        _print_table(name, made, x, rounds)


def runtime(rounds: int, threads: int) -> None:
    """Prints what ONNX Runtime takes, its optimisations on, for what the passes make of operators in pieces."""
    torch.manual_seed(0)
    x = torch.randn(8, 128, 256)
    feeds = {"x": x.numpy()}
    for name, parts in PIECES.items():
        model = networks.export(networks.Encoder(**parts), x)
        sessions = []
        for skip in (FUSIONS, []):
            made = graphopt.optimize(model, passes=_PASSES, skip=skip, validate=False)
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads
            sessions.append(onnxruntime.InferenceSession(made.SerializeToString(), options, ["CPUExecutionProvider"]))
        runs: list[Step] = [functools.partial(session.run, None, feeds) for session in sessions]
        print(f"{name}: ONNX Runtime takes {time_ratios(runs, rounds)[1]:.2f}x the time once put together")


def _nodes(model: onnx.ModelProto) -> str:
    return f"{sum(node.op_type != 'Constant' for node in model.graph.node)} nodes"


def _print_table(name: str, modules: Mapping[str, nn.Module], x: Tensor, rounds: int) -> None:
    made = [step_of(module, x) for module in modules.values()]
    times, peaks = time_ratios(made, rounds), [peak(step) for step in made]
    print(f"{name}:")
    for module, ratio, held in zip(modules, times, peaks, strict=True):
        trained = sum(one.numel() for one in modules[module].parameters() if one.requires_grad)
        share = f"memory {held / peaks[0]:.2f}x ({held / 2**20:.1f} MiB)"
        print(f"  {module:24} time {ratio:.2f}x  {share}  {trained:,} weights train", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["cases", "steps", "pieces", "runtime"])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    package, note = onnx2torch()
    print(f"torch {torch.__version__}, {note}")
    if options.only in (None, "cases"):
        cases(package)
    if options.only in (None, "steps"):
        steps(package, options.rounds)
    if options.only in (None, "pieces"):
        pieces(options.rounds)
    if options.only in (None, "runtime"):
        runtime(options.rounds, options.threads)


if __name__ == "__main__":
    main()
