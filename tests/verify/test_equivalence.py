"""The verifier tells equal from different from unproven, and survives what it runs."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from harness import parse

from graphopt import io, proto
from graphopt.errors import EnvironmentProblem, LimitReached, ModelError, UsageError
from graphopt.verify import Equivalence, Verifier, validate
from graphopt.verify import equivalence as module
from graphopt.verify.process import Worker, WorkerLost, available_memory

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
WEIGHT = np.random.default_rng(0).standard_normal((16, 8)).astype(np.float32)
DENSE = "agraph (float[N,16] x) => (float[N,8] y, float[N,8] z) { y = MatMul(x, w) z = Relu(y) }"


def _dense(weight: np.ndarray[Any, Any] = WEIGHT, text: str = DENSE) -> ir.Model:
    return parse(text, {"w": weight})


@pytest.fixture(scope="module")
def dense() -> Iterator[Verifier]:
    with Verifier(_dense()) as verifier:
        yield verifier


def test_equal(dense: Verifier) -> None:
    verdict = dense.check(_dense())
    assert verdict.status == "equal"
    assert verdict.equal
    assert verdict.identical
    assert [output.name for output in verdict.outputs] == ["y", "z"]
    assert [sample["x"] for sample in verdict.samples] == [(1, 16), (3, 16)]
    assert "identical bits in 2 outputs on 2 samples" in verdict.message


def test_perturbed_weight(dense: Verifier) -> None:
    weight = WEIGHT.copy()
    weight[3, 5] += 0.01
    verdict = dense.check(_dense(weight))
    assert verdict.status == "different"
    assert verdict.message.startswith("output 'y': differs by up to ")
    assert verdict.outputs[0].cosine is not None
    assert verdict.outputs[0].cosine < 1
    assert dense.check(_dense()).equal, "the verifier is good for more than one check"


def test_rounding_is_equal_but_not_identical(dense: Verifier) -> None:
    weight = WEIGHT * np.float32(1 + 2e-7)
    verdict = dense.check(_dense(weight))
    assert verdict.equal
    assert not verdict.identical
    assert "within tolerance" in verdict.message
    with Verifier(_dense(), exact=True) as exact:
        strict = exact.check(_dense(weight))
    assert strict.status == "different"
    assert "not bit-identical" in strict.message


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (DENSE.replace("(float[N,8] y, float[N,8] z)", "(float[N,8] z, float[N,8] y)"), "output 0 was y .*, now z"),
        (DENSE.replace(", float[N,8] z)", ")"), "output 1 was z .*, now missing"),
        (DENSE.replace("x)", "x, float[N,8] more)", 1), "input 1 was missing, now more"),
        (DENSE.replace("x", "q"), "input 0 was x .*, now q"),
        (DENSE.replace("float[N,8] z", "double[N,8] z").replace("Relu", "Cast<to = 11>"), "double"),
        (DENSE.replace("float[N,8] z", "float[N,M] z").replace("Relu(y)", "Concat<axis = 1>(y, y)"), "shape"),
        (DENSE.replace("Relu", "Sqrt"), "NaN"),
        (DENSE.replace("N,", "1,"), "does not run"),
        (DENSE.replace("Relu", "Nonsense"), "does not run"),
    ],
    ids=["swapped", "lost", "new input", "renamed", "dtype", "shape", "nan", "pinned", "unknown op"],
)
def test_different(dense: Verifier, text: str, match: str) -> None:
    verdict = dense.check(_dense(text=text))
    assert verdict.status == "different"
    assert re.search(match, verdict.message), verdict.message


def test_values_of_swapped_outputs() -> None:
    a = parse("agraph (float[4] x) => (float[4] y, float[4] z) { y = Neg(x) z = Abs(x) }")
    b = parse("agraph (float[4] x) => (float[4] y, float[4] z) { z = Neg(x) y = Abs(x) }")
    assert validate(a, b).status == "different"


def test_models_of_other_kinds_are_compared_too() -> None:
    a, b = (parse(f"agraph (float[4] x) => (float[4] y) {{ y = {op}(x) }}") for op in ("Neg", "Abs"))
    assert validate(proto.to_proto(a), a).equal
    assert validate(a, proto.to_proto(b)).status == "different"
    with pytest.raises(UsageError, match="int is no model"):
        validate(a, 5)


def test_tiny_outputs_are_held_to_the_same_standard() -> None:
    text = (
        "agraph (float[4,16] x) => (float[4,8] y) {{ k = Constant<value_float = {}>() m = MatMul(x, w) y = Mul(m, k) }}"
    )
    for scale in (1e-8, 1.0, 1e8):
        a, b = _dense(text=text.format(scale)), _dense(text=text.format(scale * 1.01))
        assert validate(a, a).equal
        assert validate(a, b).status == "different"


def test_folded_initializer_that_callers_may_override() -> None:
    a = parse("agraph (float[4] x, float[4] w) => (float[4] y) { y = Add(x, w) }", {"w": np.ones(4, np.float32)})
    b = parse(
        """agraph (float[4] x, float[4] w) => (float[4] y) {
            k = Constant<value_float = 1.0>() u = Sub(w, w) v = Add(u, k) y = Add(x, v) }""",
        {"w": np.ones(4, np.float32)},
    )
    assert validate(a, b).status == "different"
    assert validate(a, a).equal


def test_scalar_that_callers_may_override() -> None:
    text = "agraph (float[4] x, float k) => (float[4] y) { y = Mul (x, k) }"
    verdict = validate(*[parse(text, {"k": np.array(3, np.float32)}) for _ in range(2)])
    assert verdict.equal
    assert [sample.get("k") for sample in verdict.samples] == [None, None, ()]


def test_folded_condition_that_callers_may_override() -> None:
    text = """agraph (float[4] x, bool c) => (float[4] y) {{
        y = If (c) < then_branch = t () => (float[4] a) {{ a = Neg (x) }},
                     else_branch = e () => (float[4] b) {{ b = {} (x) }} > }}"""
    a, b = (parse(text.format(name), {"c": np.array(True)}) for name in ("Exp", "Abs"))
    assert validate(a, b).status == "different"
    assert validate(a, a).equal


def test_random_outputs_and_only_they_are_left_out() -> None:
    text = """agraph (float[500] x) => (float[500] y, float[500] z) {{
        r = RandomNormalLike{}(x) y = Add(x, r) z = Mul(x, {}) }}"""
    a = parse(text.format("", "two"), {"two": np.array(2, np.float32)})
    verdict = validate(a, a)
    assert verdict.equal
    assert [output.tolerance.kind for output in verdict.outputs] == ["random", "close"]
    assert verdict.notes == ("random: only the shape and dtype of y were compared",)
    b = parse(text.format("", "two"), {"two": np.array(3, np.float32)})
    assert validate(a, b).status == "different"
    seeded = parse(text.format("<seed = 1.0>", "two"), {"two": np.array(2, np.float32)})
    other = parse(text.format("<seed = 2.0>", "two"), {"two": np.array(2, np.float32)})
    assert validate(seeded, seeded).identical
    assert validate(seeded, other).status == "different"


def test_random_operator_in_a_branch() -> None:
    model = parse(
        """agraph (float[99] x, bool c) => (float[99] y) {
            y = If (c) <then_branch = t () => (float[99] a) { a = RandomNormalLike(x) },
                        else_branch = e () => (float[99] b) { b = Abs(x) }> }"""
    )
    assert validate(model, model).notes


@pytest.mark.parametrize(("training", "noted"), [(False, False), (True, True)])
def test_dropout_is_random_only_when_it_trains(training: bool, noted: bool) -> None:
    model = parse(
        "agraph (float[99] x) => (float[99] y) { y = Dropout(x, ratio, training) }",
        {"ratio": np.array(0.5, np.float32), "training": np.array(training)},
    )
    verdict = validate(model, model)
    assert verdict.equal
    assert bool(verdict.notes) is noted


def test_integers_are_exact() -> None:
    text = "agraph (int64[40] x) => (int64[40] y) {{ k = Constant<value_int = {}>() y = Mul(x, k) }}"
    a, b = parse(text.format(3)), parse(text.format(4))
    assert validate(a, a).identical
    verdict = validate(a, b)
    assert verdict.status == "different"
    assert "of the elements are equal" in verdict.message


def test_half_precision_weights_are_only_storage() -> None:
    half = WEIGHT.astype(np.float16)
    stored = "agraph (float[N,16] x) => (float[N,8] y) { f = Cast<to = 1>(w) y = MatMul(x, f) }"
    computed = "agraph (float[N,16] x) => (float[N,8] y) { h = Cast<to = 10>(x) m = MatMul(h, w) y = Cast<to = 1>(m) }"
    other = (half * np.float16(1.002)).astype(np.float16)
    assert validate(_dense(half, stored), _dense(other, stored)).status == "different"
    assert validate(_dense(half, computed), _dense(other, computed)).equal


def test_calibration_by_what_onnxruntime_itself_changes(models: Path, tmp_path: Path) -> None:
    """A text detector's outputs, all tiny: ONNX Runtime's own fusions move them by more than float32 rounds."""
    original = models / "ppocrv6_det_tiny.onnx"
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "fused.onnx")
    ort.InferenceSession(original, options, ["CPUExecutionProvider"])
    with Verifier(original, rtol=1e-4) as verifier:
        assert verifier.check(tmp_path / "fused.onnx").status == "different"
    verdict = validate(original, tmp_path / "fused.onnx")
    assert verdict.equal
    assert verdict.outputs[0].tolerance.kind == "calibrated"


def test_original_that_cannot_run_is_unproven() -> None:
    model = parse("agraph (float[2] x) => (float[2] y) { y = Nonsense(x) }")
    verdict = validate(model, model)
    assert verdict.status == "unproven"
    assert not verdict.equal
    assert "Nonsense" in verdict.message
    mismatched = parse(
        "agraph (float[A,B] x) => (float[C] y) { s = Shape(x) y = Reshape(x, k) }", {"k": np.array([7919])}
    )
    verdict = validate(mismatched, mismatched)
    assert verdict.status == "unproven"
    assert "no generated inputs run" in verdict.message


def test_paths_and_models(tmp_path: Path) -> None:
    io.save(_dense(), tmp_path / "a.onnx")
    for a in (tmp_path / "a.onnx", str(tmp_path / "a.onnx"), _dense()):
        for b in (tmp_path / "a.onnx", _dense()):
            assert validate(a, b).identical


def test_unreadable_files(tmp_path: Path) -> None:
    io.save(_dense(), tmp_path / "a.onnx")
    (tmp_path / "b.onnx").write_bytes(b"no model")
    for pair in (("a.onnx", "b.onnx"), ("b.onnx", "a.onnx"), ("a.onnx", "c.onnx")):
        with pytest.raises(ModelError, match=r"[bc]\.onnx"):
            validate(*(tmp_path / name for name in pair))
    with Verifier(tmp_path / "b.onnx") as verifier, pytest.raises(ModelError):
        verifier.check(_dense())


def test_model_may_change_after_the_call() -> None:
    model = _dense()
    with Verifier(model) as verifier:
        model.graph.initializers["w"].const_value = ir.tensor(WEIGHT * 2)
        assert verifier.check(_dense()).equal
        assert verifier.check(model).status == "different"


def test_big_weights_travel_outside_the_message(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).standard_normal((700, 500)).astype(np.float32)
    text = "agraph (float[N,700] x) => (float[N,500] y) { y = MatMul(x, w) }"
    io.save(_dense(weight, text), tmp_path / "a.onnx", external_data=True)
    loaded = io.load(tmp_path / "a.onnx")
    weight[600, 3] += 1
    with Verifier(tmp_path / "a.onnx") as verifier:
        assert verifier.check(loaded).identical
        assert verifier.check(_dense(weight, text)).status == "different"


def test_map_outputs(models: Path) -> None:
    path = next(models.glob("*iris*.onnx"))
    assert validate(path, io.load(path)).identical


def test_time_limit_stops_a_loop() -> None:
    endless = parse(
        """agraph (float x) => (float y) {
            trips = Constant<value_int = 9000000000000>() true = Constant<value_int = 1>() go = Cast<to = 9>(true)
            y = Loop (trips, go, x) <body = b (int64 i, bool c, float s) => (bool d, float t)
                { d = Identity(c) t = Neg(s) }> }"""
    )
    start = time.monotonic()
    with Verifier(endless, time_limit=1) as verifier, pytest.raises(LimitReached, match="the original") as caught:
        verifier.check(endless)
    assert caught.value.exit_code == 7
    assert "--time-limit" in caught.value.hint
    finite = parse("agraph (float x) => (float y) { y = Neg(x) }")
    with Verifier(finite, time_limit=2) as verifier:
        with pytest.raises(LimitReached, match="the candidate"):
            verifier.check(endless)
        assert verifier.check(finite).equal, "the next check starts another worker"
    assert time.monotonic() - start < 30


@LINUX
def test_memory_limit() -> None:
    hungry = parse(
        """agraph (float[N] x) => (float z) {
            n = Constant<value_ints = [600000000]>() big = ConstantOfShape(n)
            m = ReduceMax<keepdims = 0>(big) z = Neg(m) }"""
    )
    with Verifier(hungry, memory_limit=500_000_000) as verifier, pytest.raises(LimitReached) as caught:
        verifier.check(hungry)
    assert "--memory-limit" in caught.value.hint


@LINUX
def test_limits_default_to_what_is_free() -> None:
    free = available_memory()
    assert free is not None
    assert free > 1 << 26


@LINUX
@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT])
def test_crash_of_the_worker_is_a_verdict(number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    with Verifier(_dense()) as verifier:
        assert verifier.check(_dense()).equal
        ask = verifier._ask

        def crash(request: dict[str, Any]) -> dict[str, Any]:
            assert verifier._worker is not None
            os.kill(verifier._worker.pid, number)
            return ask(request)

        monkeypatch.setattr(verifier, "_ask", crash)
        verdict = verifier.check(_dense())
        assert verdict.status == "different"
        assert number.name in verdict.message
        monkeypatch.setattr(verifier, "_ask", ask)
        assert verifier.check(_dense()).equal


@LINUX
def test_killed_from_outside_is_a_limit() -> None:
    worker = Worker(None)
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(WorkerLost) as caught:
        worker.request({"do": "rest"}, 10)
    assert caught.value.reason == "memory"
    worker.close()


def test_fault_of_the_worker_is_a_bug_not_a_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    with Verifier(_dense()) as verifier:
        assert verifier.check(_dense()).equal
        monkeypatch.setitem(verifier._policy, "rtol", "not a number")
        with pytest.raises(RuntimeError, match="Traceback"):
            verifier.check(_dense(WEIGHT * 2))


@LINUX
def test_no_process_is_left(tmp_path: Path) -> None:
    with Verifier(_dense()) as verifier:
        assert verifier._worker is not None
        pid = verifier._worker.pid
        assert Path(f"/proc/{pid}").exists()
    assert not Path(f"/proc/{pid}").exists()


@LINUX
def test_worker_ends_with_its_parent(tmp_path: Path) -> None:
    """Even when the parent is killed while the worker computes and reads no pipe."""
    script = textwrap.dedent("""
        import sys, time
        from graphopt.verify.process import Worker
        worker = Worker(None)
        worker.request({"do": "rest"}, 60)
        print(worker.pid, flush=True)
        time.sleep(60)
    """)
    root = str(Path(module.__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root}
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    end = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and time.monotonic() < end:
        time.sleep(0.1)
    assert not Path(f"/proc/{pid}").exists()


def test_leaving_early_is_quick() -> None:
    start = time.monotonic()
    with Verifier(_dense()):
        pass
    assert time.monotonic() - start < 5


def test_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    model = parse("agraph (float[2] x) => (float[2] y) { y = Nonsense(x) }")
    validate(model, model)
    validate(_dense(), model)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "options",
    [
        {"metric": "accuracy"},
        {"max_drop": 0.1},
        {"samples": 0},
        {"time_limit": 0},
        {"shapes": {"none": [1]}},
        {"custom_ops": ["nowhere.so"]},
        {"metric": "nonsense", "feeds_file": Path("x.npz")},
    ],
    ids=lambda options: next(iter(options)),
)
def test_options_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        validate(_dense(), _dense(), **options)


def test_missing_provider() -> None:
    with pytest.raises(EnvironmentProblem):
        Verifier(_dense(), provider="abacus")


def test_custom_operators_must_be_named(tmp_path: Path) -> None:
    model = parse(
        '<ir_version: 8, opset_import: ["" : 17, "custom" : 1]> agraph (float[2] x) => (float[2] y) { y = custom.F(x) }'
    )
    assert validate(model, model).status == "unproven"


def test_user_tolerance() -> None:
    other = _dense(WEIGHT + np.float32(0.01))
    assert validate(_dense(), other).status == "different"
    verdict = validate(_dense(), other, atol=1.0)
    assert verdict.equal
    assert verdict.outputs[0].tolerance.kind == "user"


def test_verdict_is_json_and_renders() -> None:
    from rich.console import Console

    verdict = validate(_dense(), _dense(WEIGHT * 2))
    data = json.loads(json.dumps(verdict.to_dict()))
    assert data["status"] == "different"
    assert {"name", "dtype", "shape", "max_abs", "max_rel", "cosine", "argmax_agreement", "tolerance", "ok"} <= set(
        data["outputs"][0]
    )
    console = Console(width=120, record=True, file=StringIO())
    console.print(verdict)
    text = console.export_text()
    assert "different" in text
    assert "float32[1,8]" in text
    html = verdict._repr_html_()
    assert "<table>" in html
    assert "different" in html


def test_long_names_fit_a_narrow_terminal() -> None:
    from rich.console import Console

    name = "StatefulPartitionedCall_with_a_long_name"
    text = f"agraph (float[N,16] x) => (float[N,8] {name}_1, float[N,8] {name}_2) {{ {name}_1 = MatMul(x, w) "
    verdict = validate(
        _dense(text=text + f"{name}_2 = Neg({name}_1) }}"), _dense(WEIGHT * 2, text + f"{name}_2 = Relu({name}_1) }}")
    )
    console = Console(width=80, record=True, file=StringIO())
    console.print(verdict)
    table = console.export_text().partition("\noutput ")[2].splitlines()
    assert [line.split()[0][-2:] for line in table[1:3]] == ["_1", "_2"]
    assert all(line.endswith("differs") for line in table[1:3])


def test_infinite_figures_are_json() -> None:
    verdict = Equivalence("equal", "x")
    assert json.loads(json.dumps(verdict.to_dict(), allow_nan=False))["status"] == "equal"


def test_worker_imports_no_onnx() -> None:
    heavy = ("onnx", "onnx_ir", "rich", "torch")
    code = f"import sys, graphopt.verify.worker; print([name for name in {heavy} if name in sys.modules])"
    root = str(Path(module.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": root}
    )
    assert done.stdout.strip() == "[]"


def test_session_bytes_are_what_files_hold(tmp_path: Path) -> None:
    """The model that is compared is the one that would be saved."""
    (tmp_path / "a.onnx").write_bytes(proto.to_proto(_dense()).SerializeToString())
    assert validate(tmp_path / "a.onnx", _dense()).identical


@pytest.mark.parametrize("fill", [-1e9, -3.4028235e38])
def test_masked_elements_hide_nothing(fill: float) -> None:
    text = "agraph (float[N,8] x) => (float[N,8] y) {{ r = {}(x) y = Where(m, r, f) }}"
    weights = {"m": np.arange(8) < 5, "f": np.array(fill, np.float32)}
    a, b = parse(text.format("Neg"), weights), parse(text.format("Relu"), weights)
    assert validate(a, b).status == "different"
    assert validate(a, a).equal


def test_malformed_models_are_refused() -> None:
    for text in (
        "agraph (float[4] x, int64[4] i) => (bool[4] y) { y = Equal(i) }",
        "agraph (float[4] x, int64[4] i) => (float[4] y) { j = Add(i) y = Gather(x, j) }",
    ):
        with pytest.raises(ModelError, match="input 1 is missing"):
            validate(parse(text), parse(text))


def test_cast_to_a_type_by_name() -> None:
    text = """<ir_version: 3, opset_import: ["" : 5]>
    agraph (float[4] x) => (float[4] y) { h = Cast<to = "FLOAT16">(x) y = Cast<to = "FLOAT">(h) }"""
    assert validate(parse(text), parse(text)).status == "unproven"


def test_original_that_only_runs_without_optimizations(monkeypatch: pytest.MonkeyPatch) -> None:
    from graphopt.verify import tolerance, worker

    def refuse(*_: Any) -> None:
        raise ModelError("no")

    judge = worker._Judge()
    judge._samples = [worker._Sample({}, [np.ones(2)], None)]
    monkeypatch.setattr(worker, "_open", refuse)
    difference = tolerance.compare(np.ones(2), np.ones(2) * 2, 1e-9)
    (verdict,) = judge._judge(["y"], [[difference]], tolerance.Policy(), set())
    assert not verdict.ok


@pytest.mark.parametrize(
    ("body", "shape", "named"),
    [
        ("c = ReduceSum <keepdims = 1> (x, one)\n y = Softmax (c)", "N,1", True),
        ("b = Greater (x, far)\n f = Reshape (x, flat)\n m = Reshape (b, flat)\n y = Compress (f, m)", "M", True),
        ("y = Relu (x)", "N,4", False),
    ],
)
def test_outputs_that_never_vary_are_said_to_prove_little(body: str, shape: str, named: bool) -> None:
    model = parse(
        f"agraph (float[N,4] x) => (float[{shape}] y) {{ {body} }}",
        {"one": np.array([1]), "far": np.array(1e6, np.float32), "flat": np.array([-1])},
    )
    result = validate(model, model)
    assert result.equal
    assert any("proves little" in note for note in result.notes) is named
