"""What a rewrite buys where ONNX Runtime does nothing itself: micro-models before and after graphopt.

``python tests/bench/micro.py [--seconds 1] [--only TEXT]`` prints a Markdown table: ONNX Runtime on the CPU, one
thread, its default optimisations, runs interleaved. The model is timed twice beside the result: what the two copies
differ by (A/A) is what the gain cannot be told from.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
if __name__ == "__main__":
    sys.path[:1] = [str(ROOT), str(ROOT / "passes"), str(ROOT / "tests")]

from bench.micrographs.case import Case, row  # noqa: E402

import graphopt  # noqa: E402
from graphopt import proto  # noqa: E402

__all__ = ["CASES", "main"]

_VECTOR = "(float[64,4096] x) => (float[64,4096] y)"
_PICTURE = "(float[1,64,56,56] x) => (float[1,64,56,56] y)"
_BATCH = 16  # where the model leaves it open
_EXPANDS = "".join(
    f"s{one} = Shape <start = 0, end = 1> (z) t{one} = Concat <axis = 0> (s{one}, m) c{one} = Equal (t{one}, q)"
    f"u{one} = Where (c{one}, o, t{one}) e{one} = Expand (b{one}, u{one}) a{one + 1} = Add (a{one}, e{one})\n"
    for one in range(8)
)
_ROWS = ", ".join(f"float[1,32] b{one}" for one in range(8))

CASES: list[Case] = [
    *row(
        "micro",
        head=_VECTOR,
        pow_half="<float q = {0.5}> { a = Abs (x) y = Pow (a, q) }",
        pow_two="<float q = {2}> { a = Abs (x) y = Pow (a, q) }",
        div_by_constant="<float q = {3}> { y = Div (x, q) }",
        div_by_vector="<float[4096] v> { y = Div (x, v) }",
        hard_swish=f"{_PICTURE} <float[64,64,1,1] w, float t = {{3}}, float z = {{0}}, float s = {{6}}>"
        "{ k = Conv (x, w) a = Add (k, t) b = Clip (a, z, s) c = Mul (k, b) y = Div (c, s) }",
        rep_vgg=f"{_PICTURE} <float[64,64,3,3] w, float[64,64,1,1] u>"
        "{ a = Conv <pads = [1, 1, 1, 1]> (x, w) b = Conv (x, u) c = Add (a, b) d = Add (c, x) y = Relu (d) }",
        conv_of_conv=f"{_PICTURE} <float[64,64,1,1] w, float[64,64,3,3] u>"
        "{ a = Conv (x, w) y = Conv <pads = [1, 1, 1, 1]> (a, u) }",
        batchnorm_three_axes="(float[8,128,256] x) => (float[8,128,256] y) <float[256,256] w, float[256] c,"
        "float[256] g, float[256] b, float[256] m, float[256] v> { a = MatMul (x, w) d = Add (a, c)"
        "t = Transpose <perm = [0, 2, 1]> (d) n = BatchNormalization (t, g, b, m, v)"
        "y = Transpose <perm = [0, 2, 1]> (n) }",
        batchnorm_into_conv=f"{_PICTURE} <float[64,64,1,1] w, float[64] g, float[64] b, float[64] m, float[64] v>"
        "{ a = BatchNormalization (x, g, b, m, v) y = Conv (a, w) }",
        dead_nodes="{ a = Exp (x) b = Log (a) c = Erf (b) y = Relu (x) }",
        expand_chains="(float[N,32] z, float[N,32] a0) => (float[N,32] y) <int64[2] o = {1, 1}, int64[1] m = {32},"
        f"int64[2] q = {{-1, -1}}, {_ROWS}> {{ {_EXPANDS} y = Sub (a8, z) }}",
        zeroed_channels=f"{_PICTURE} <float[96,64,3,3] z, float[64,96,3,3] w>"
        "{ a = Conv <pads = [1, 1, 1, 1]> (x, z) b = Relu (a) y = Conv <pads = [1, 1, 1, 1]> (b, w) }",
        matmul_of_matmul="(float[64,512] x) => (float[64,64] y) <float[512,512] w, float[512,64] u>"
        "{ a = MatMul (x, w) y = MatMul (a, u) }",
    )
]


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.0, help="of timed runs of each model, at least")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    options = parser.parse_args(arguments)
    print("| case | before, ms | after, ms | before / after | A/A |\n|-|-|-|-|-|")
    for case in [one for one in CASES if options.only in one.name]:
        before = proto.from_proto(case.model())
        after, report = graphopt.optimize(before, with_report=True)
        assert report.status == "proven", (case.name, report.status)
        batch = _BATCH if "[N," in case.text else None
        rows = graphopt.bench([before, before, after], threads=1, batch=batch, min_time=options.seconds).rows
        first, again, last = (one.latency.p50 for one in rows)
        fastest = min(first, again)
        noise = max(first, again) / fastest
        print(f"| {case.name} | {fastest:.3f} | {last:.3f} | {fastest / last:.2f}x | {noise:.2f}x |", flush=True)


if __name__ == "__main__":
    main()
