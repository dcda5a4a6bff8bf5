"""Teachers: what they give, from whose memory, and under which names; the thread that works ahead."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from harness import parse

from graphopt import io, runtime
from graphopt.distillation import teacher as module
from graphopt.distillation.ahead import ahead, split_cores
from graphopt.distillation.batch import TopK
from graphopt.distillation.ensemble import Ensemble
from graphopt.distillation.sparse import top_k
from graphopt.distillation.teacher import Teacher
from graphopt.errors import ModelError, UsageError

RNG = np.random.default_rng(0)
W = RNG.standard_normal((4, 5)).astype(np.float32)
X = RNG.standard_normal((6, 4)).astype(np.float32)


def model(batch: str = "N", weight: Any = W) -> ir.Model:
    return parse(
        f"""agraph (float[{batch},4] x) => (float[{batch},5] y, bool[{batch},5] p) {{
            h = MatMul(x, w)
            z = Relu(h)
            y = Softmax(z)
            zero = Constant<value = float {{0}}>()
            p = Greater(h, zero)
        }}""",
        {"w": weight},
    )


def softmax(z: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    e = np.exp(z - z.max(-1, keepdims=True))
    return np.asarray(e / e.sum(-1, keepdims=True))


def test_outputs_and_inner_values() -> None:
    teacher = Teacher(model(), ["y", "z", "p"], threads=1)
    found = teacher.outputs({"x": X, "stranger": X})
    np.testing.assert_allclose(found["z"], np.maximum(X @ W, 0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["y"], softmax(np.maximum(X @ W, 0)), rtol=1e-5)
    assert found["p"].dtype == bool
    assert (found["p"] == (X @ W > 0)).all()
    assert teacher.names == ("y", "z", "p")
    assert teacher.kinds == {"y": "probabilities", "z": "values", "p": "values"}
    assert Teacher(model()).names == ("y", "p")


def test_from_a_path_and_what_is_not_needed_is_left_out(tmp_path: Path) -> None:
    io.save(model(), tmp_path / "t.onnx")
    teacher = Teacher(tmp_path / "t.onnx", ["h"])
    assert list(teacher.outputs({"x": X})) == ["h"]
    assert teacher.digest == Teacher(model()).digest


def test_the_caller_s_model_stays_as_it_is() -> None:
    own = model()
    before = [value.name for value in own.graph.outputs], len(list(own.graph))
    Teacher(own, ["h"]).outputs({"x": X})
    assert ([value.name for value in own.graph.outputs], len(list(own.graph))) == before


def test_the_digest_is_of_structure_and_weights_only() -> None:
    digest = Teacher(model()).digest
    assert Teacher(model(), ["h"]).digest == digest
    assert Teacher(model(weight=W + 1e-7)).digest != digest
    other = model()
    next(node for node in other.graph if node.op_type == "Relu").op_type = "Abs"
    assert Teacher(other).digest != digest
    older = parse('<ir_version: 10, opset_import: ["" : 20]>\nagraph (float[N,4] x) => (float[N,4] y) { y = Relu(x) }')
    newer = parse("agraph (float[N,4] x) => (float[N,4] y) { y = Relu(x) }")
    assert Teacher(older).digest != Teacher(newer).digest


@pytest.mark.parametrize(
    ("names", "match"),
    [(["hh"], "no value 'hh'.*\n.*'h'"), ([], "nothing is asked")],
)
def test_names_that_are_none(names: list[str], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        Teacher(model(), names)


def test_feeds_that_do_not_fit() -> None:
    teacher = Teacher(model(), ["z"])
    assert teacher.outputs({"another name": X})["z"].shape == (6, 5)
    with pytest.raises(UsageError, match="needs 'x', and the data feed 'a', 'b'"):
        teacher.outputs({"a": X, "b": X})
    with pytest.raises(ModelError, match="cannot run the teacher"):
        teacher.outputs({"x": X[:, :3]})


def test_tensors_are_read_and_given_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    shared = module._to_ort

    def noted(value: Any, device: torch.device) -> Any:
        seen.append(shared(value, device))
        return seen[-1]

    monkeypatch.setattr(module, "_to_ort", noted)
    teacher = Teacher(model(), ["z"])
    x = torch.from_numpy(X).requires_grad_()
    first = teacher.tensors({"x": x})["z"]
    assert seen[0].data_ptr() == x.data_ptr()
    assert not first.requires_grad
    kept = first.clone()
    second = teacher.tensors({"x": -x})["z"]
    assert first.data_ptr() != second.data_ptr()
    assert torch.equal(first, kept)
    del teacher
    assert torch.equal(first, kept)


def test_every_dtype_passes() -> None:
    types = {"a": "float16", "b": "double", "c": "int64", "d": "bool", "e": "bfloat16", "f": "uint8"}
    inputs = ", ".join(f"{kind}[N,2] {name}" for name, kind in types.items())
    outputs = ", ".join(f"{kind}[N,2] {name}o" for name, kind in types.items())
    body = "\n".join(f"{name}o = Identity({name})" for name in types)
    teacher = Teacher(parse(f"agraph ({inputs}) => ({outputs}) {{ {body} }}"))
    values = torch.arange(6).reshape(3, 2)
    dtypes = [torch.float16, torch.float64, torch.int64, torch.bool, torch.bfloat16, torch.uint8]
    feeds = {name: values.to(dtype).t().contiguous().t() for name, dtype in zip(types, dtypes, strict=True)}
    found = teacher.tensors(feeds)
    for name, value in feeds.items():
        assert found[f"{name}o"].dtype == value.dtype
        assert torch.equal(found[f"{name}o"], value)
    assert teacher.outputs(feeds)["eo"].dtype == np.float32


@pytest.mark.parametrize("batch", [1, 4, 6, 8])
def test_a_fixed_batch_is_cut_and_filled_up(batch: int) -> None:
    expected = Teacher(model(), ["z"]).outputs({"x": X})["z"]
    for feed in (X, torch.from_numpy(X)):
        found = Teacher(model(str(batch)), ["z"]).outputs({"x": feed})["z"]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_fixed_batch_without_an_axis_of_samples() -> None:
    text = "agraph (float[2,4] x) => (float[1,4] y) { y = ReduceMean<keepdims = 1>(x, axes) }"
    whole = parse(text, {"axes": np.array([0])})
    with pytest.raises(UsageError, match="no axis of them"):
        Teacher(whole).outputs({"x": X})


def test_it_is_a_source_of_targets() -> None:
    found = Teacher(model(), ["z"]).targets(np.arange(6), 0, {"x": X})
    assert isinstance(found["z"], torch.Tensor)


# -- the largest probabilities ---------------------------------------------------------------------------------------


def test_top_k_of_logits() -> None:
    logits = torch.tensor([[0.0, 3.0, -40.0, 1.0]])
    found = top_k(logits, "logits", 2, 2.0)
    expected = softmax(logits.double().numpy() / 2)
    assert found.indices.tolist() == [[1, 3]]
    np.testing.assert_allclose(found.probabilities, expected[:, [1, 3]], rtol=1e-6)
    np.testing.assert_allclose(found.rest, expected[:, [0, 2]].sum(-1), rtol=1e-6)
    assert found.temperature == 2.0


def test_top_k_does_not_lose_a_small_rest() -> None:
    found = top_k(torch.tensor([[30.0, 0.0, 0.0]]), "logits", 1)
    np.testing.assert_allclose(found.rest, 2 * np.exp(-30.0), rtol=1e-5)


def test_top_k_of_probabilities_and_their_logarithms() -> None:
    logits = torch.randn(3, 7, generator=torch.Generator().manual_seed(0))
    expected = top_k(logits, "logits", 3, 4.0)
    for kind, output in (("probabilities", logits.softmax(-1)), ("log-probabilities", logits.log_softmax(-1))):
        found = top_k(output, kind, 3, 4.0)  # type: ignore[arg-type]
        assert torch.equal(found.indices, expected.indices)
        torch.testing.assert_close(found.probabilities, expected.probabilities)
        torch.testing.assert_close(found.rest, expected.rest)


@pytest.mark.parametrize("k", [0, 7, 9])
def test_top_k_out_of_range(k: int) -> None:
    with pytest.raises(UsageError, match="of 7 classes"):
        top_k(torch.zeros(1, 7), "logits", k)


# -- several teachers ------------------------------------------------------------------------------------------------


class Fixed:
    def __init__(self, output: torch.Tensor | TopK) -> None:
        self.output = output

    def targets(self, ids: Any, view: int, feeds: Mapping[str, Any]) -> Mapping[str, torch.Tensor | TopK]:
        return {"y": self.output}


def test_fixed_weights() -> None:
    teachers = [Fixed(torch.zeros(2, 3)), Fixed(torch.ones(2, 3))]
    assert Ensemble(teachers).weights([], None).tolist() == [0.5, 0.5]
    ensemble = Ensemble(teachers, [1, 3])
    targets = ensemble.targets(np.arange(2), 0, {})
    assert [float(one["y"].sum()) for one in targets if isinstance(one["y"], torch.Tensor)] == [0, 6]
    assert ensemble.weights(targets, None).tolist() == [0.25, 0.75]
    assert not ensemble.by_sample


def test_weights_by_sample() -> None:
    logits = [torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 0.0]]), torch.tensor([[0.0, 2.0, 0.0], [0.0, 0.0, 0.0]])]
    teachers = [Fixed(one) for one in logits]
    ensemble = Ensemble(teachers, rated=[("y", "logits"), ("y", "logits")])
    labels = torch.tensor([0, 2])
    found = ensemble.weights(ensemble.targets(np.arange(2), 0, {}), labels)
    losses = torch.stack([torch.nn.functional.cross_entropy(one, labels, reduction="none") for one in logits], -1)
    torch.testing.assert_close(found, 1 - losses.softmax(-1))
    assert found[0, 0] > 0.8
    assert found[1].tolist() == [0.5, 0.5]
    sparse = Ensemble([Fixed(top_k(one, "logits", 2)) for one in logits], rated=[("y", "logits"), ("y", "logits")])
    close = sparse.weights(sparse.targets(np.arange(2), 0, {}), torch.tensor([0, 0]))
    torch.testing.assert_close(close[0], found[0], atol=0.1, rtol=0)
    with pytest.raises(UsageError, match="need labels"):
        ensemble.weights([], None)


@pytest.mark.parametrize("weights", [[1.0], [-1.0, 2.0], [0.0, 0.0], [float("nan"), 1.0]])
def test_weights_that_are_none(weights: list[float]) -> None:
    with pytest.raises(UsageError, match="weights"):
        Ensemble([Fixed(torch.zeros(1, 2))] * 2, weights)


# -- working ahead ---------------------------------------------------------------------------------------------------


def test_ahead_keeps_the_order_and_is_one_ahead() -> None:
    started: list[int] = []
    threads = set()

    def work(item: int) -> int:
        started.append(item)
        threads.add(threading.current_thread())
        return item * item

    taken = []
    for item, result in ahead(range(5), work):
        taken.append((item, result))
        deadline = time.monotonic() + 5
        while item < 4 and item + 1 not in started and time.monotonic() < deadline:
            time.sleep(0.001)
        assert max(started) == min(item + 1, 4)
    assert taken == [(n, n * n) for n in range(5)]
    assert threading.current_thread() not in threads


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_ahead_raises_where_it_is_due_and_ends_its_thread(depth: int) -> None:
    def work(item: int) -> int:
        if item == 2:
            raise ModelError("the third")
        return item

    taken: list[int] = []
    with pytest.raises(ModelError, match="the third"):
        taken.extend(item for item, _ in ahead(range(9), work, depth))
    assert taken == [0, 1]
    assert not _ahead_threads()


def test_ahead_ends_its_thread_when_it_is_left() -> None:
    endless: Iterator[tuple[int, int]] = ahead(iter(int, 1), lambda item: item)
    next(endless)
    endless.close()  # type: ignore[attr-defined]
    assert not _ahead_threads()


def _ahead_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("graphopt-ahead")]


def test_a_run_lets_other_threads_run() -> None:
    big = RNG.standard_normal((1024, 1024)).astype(np.float32)
    teacher = Teacher(
        parse("agraph (float[N,1024] x) => (float[N,1024] y) { a = MatMul(x, w)\n y = MatMul(a, w) }", {"w": big}),
        threads=1,
    )
    x = RNG.standard_normal((2048, 1024)).astype(np.float32)
    teacher.tensors({"x": x})
    counted = 0
    thread = threading.Thread(target=lambda: teacher.tensors({"x": x}))
    thread.start()
    while thread.is_alive():
        counted += 1
    thread.join()
    assert counted > 1000  # holding the lock it would have been a handful


@pytest.mark.parametrize(
    ("cores", "share", "expected"),
    [(1, 0.5, (1, 1)), (2, 0.5, (1, 1)), (8, 0.5, (4, 4)), (8, 0.75, (6, 2)), (4, 1.0, (3, 1)), (4, 0.0, (1, 3))],
)
def test_cores_are_split(cores: int, share: float, expected: tuple[int, int]) -> None:
    assert split_cores(cores, share) == expected


def test_cores_of_this_machine() -> None:
    assert min(split_cores()) >= 1


# -- CUDA ------------------------------------------------------------------------------------------------------------


@pytest.mark.cuda
def test_cuda_without_host_copies() -> None:
    if not torch.cuda.is_available():
        pytest.skip("torch has no CUDA here")
    teacher = Teacher(model(), ["z", "p"], provider="cuda")
    assert teacher.provider == runtime.resolve_provider("cuda")
    x = torch.from_numpy(X).cuda()
    found = teacher.tensors({"x": x})
    assert found["z"].is_cuda
    assert found["p"].is_cuda
    np.testing.assert_allclose(found["z"].cpu(), np.maximum(X @ W, 0), rtol=1e-3, atol=1e-3)
    kept = found["z"].clone()
    again = teacher.tensors({"x": -x})["z"]
    assert torch.equal(found["z"], kept)
    assert not torch.equal(again, kept)
    assert teacher.outputs({"x": X})["z"].shape == (6, 5)
