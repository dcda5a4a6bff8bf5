"""What each criterion says of models in which it is known what matters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest
from harness import parse
from pruning.examples import classifier, inputs

import graphopt
from graphopt.errors import UsageError
from graphopt.pruning.importance import CRITERIA, Evidence, Ranking, covariances, criterion, obs
from graphopt.pruning.stages import Feeds

Array = npt.NDArray[Any]
_CHAIN = """agraph (float[N,6] x) => (float[N,3] y) {
    [first] a = Gemm (x, w1, b1)
    [relu] b = Relu (a)
    [second] y = Gemm (b, w2)
}"""


def _evidence(model: ir.Model, x: Array | None = None, **more: Any) -> Evidence:
    batches = [] if x is None else [{"x": part} for part in np.array_split(x, 2)]
    return Evidence(graphopt.channels.analyze(model), batches, **more)


def _chain(w1: Array, w2: Array) -> ir.Model:
    return parse(_CHAIN, {"w1": w1, "b1": np.zeros(w1.shape[1], np.float32), "w2": w2})


def _places(ranking: Ranking) -> list[int]:
    """The order as places within the group."""
    place = {unit.index: number for number, unit in enumerate(ranking.group.units)}
    return [place[unit] for unit in ranking.order.tolist()]


def _random(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("name", [name for name in CRITERIA if name not in ("taylor", "fisher", "hessian", "bn-scale")])
def test_every_criterion_orders_all_units_and_its_harm_grows(name: str) -> None:
    model, x = classifier(), inputs()
    for ranking in CRITERIA[name].rank(_evidence(model, x)):
        assert sorted(ranking.order.tolist()) == sorted(unit.index for unit in ranking.group.units)
        assert len(ranking.harm) == len(ranking.order) + 1
        assert ranking.harm[0] == 0
        assert (np.diff(ranking.harm) >= 0).all()
        assert np.isfinite(ranking.harm).all()
        assert ranking.harm[-1] > 0


@pytest.mark.parametrize("name", ["l1", "l2", "lamp", "wanda", "obs"])
def test_a_unit_of_zeros_goes_first(name: str) -> None:
    w1, w2 = _random(6, 8), _random(8, 3, seed=1)
    w1[:, 5] = 0
    w2[5] = 0
    (ranking,) = CRITERIA[name].rank(_evidence(_chain(w1, w2), _random(40, 6, seed=2)))
    assert _places(ranking)[0] == 5
    assert ranking.harm[1] == pytest.approx(0, abs=1e-6)


def test_norms_count_every_slice_of_a_unit() -> None:
    w1, w2 = _random(6, 4), _random(4, 3, seed=1)
    evidence = _evidence(_chain(w1, w2))
    (first,) = CRITERIA["l1"].rank(evidence)
    (second,) = CRITERIA["l2"].rank(evidence)
    assert _places(first) == np.argsort(np.abs(w1).sum(0) + np.abs(w2).sum(1)).tolist()
    assert _places(second) == np.argsort(np.square(w1).sum(0) + np.square(w2).sum(1)).tolist()


def test_fpgm_takes_what_lies_near_the_others() -> None:
    w1, w2 = _random(6, 5) * 0.1 + 1, _random(5, 3, seed=1) * 0.1 + 1
    w1[:, 2] -= 5
    (ranking,) = CRITERIA["fpgm"].rank(_evidence(_chain(w1, w2)))
    assert _places(ranking)[-1] == 2
    rows = np.concatenate([w1.T, w2], axis=1)
    distances = np.sqrt(np.square(rows[:, None] - rows[None]).sum(-1)).sum(1)
    assert _places(ranking) == np.argsort(distances).tolist()


def test_random_follows_the_seed() -> None:
    model = classifier()
    orders = [[r.order.tolist() for r in CRITERIA["random"].rank(_evidence(model, seed=seed))] for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]


def test_apoz_takes_what_is_always_zero() -> None:
    w1 = _random(6, 4)
    model = _chain(w1, _random(4, 3, seed=1))
    model.graph.initializers["b1"].const_value = ir.tensor(np.array([0, -100, 0, 0], np.float32), name="b1")
    (ranking,) = CRITERIA["apoz"].rank(_evidence(model, _random(40, 6, seed=2)))
    assert _places(ranking)[0] == 1


def test_batchnorm_scale_reads_the_scale_and_says_when_there_is_none() -> None:
    text = """agraph (float[N,3,4,4] x) => (float[N,2,4,4] y) {
        a = Conv (x, w1)
        b = BatchNormalization (a, scale, zero, zero, one)
        y = Conv (b, w2)
    }"""
    held = {"w1": _random(4, 3, 1, 1), "w2": _random(2, 4, 1, 1), "scale": np.array([3, -1, 2, 0.5], np.float32)}
    model = parse(text, held | {"zero": np.zeros(4, np.float32), "one": np.ones(4, np.float32)})
    (ranking,) = CRITERIA["bn-scale"].rank(_evidence(model))
    assert _places(ranking) == [3, 1, 2, 0]
    with pytest.raises(UsageError, match="no BatchNormalization"):
        CRITERIA["bn-scale"].rank(_evidence(classifier()))


def test_obs_is_the_error_that_least_squares_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(covariances, "_DAMPING", 1e-9)
    w1, w2 = _random(6, 8), _random(8, 3, seed=1)
    x = _random(300, 6, seed=2)
    (ranking,) = obs.obs(_evidence(_chain(w1, w2), x))
    hidden = np.maximum(x @ w1, 0).astype(np.float64)
    hidden -= hidden.mean(0)
    wanted = hidden @ w2
    order = _places(ranking)
    for count in range(1, 7):
        left = np.delete(hidden, order[:count], axis=1)
        missed = wanted - left @ np.linalg.lstsq(left, wanted, rcond=None)[0]
        assert ranking.harm[count] == pytest.approx(np.square(missed).sum() / np.square(wanted).sum(), rel=1e-3)


def test_of_two_equal_channels_obs_thinks_only_one_needless() -> None:
    w1, w2 = _random(6, 6), _random(6, 3, seed=1)
    w1[:, 4] = w1[:, 1]
    (ranking,) = obs.obs(_evidence(_chain(w1, w2), _random(300, 6, seed=2)))
    order = _places(ranking)
    assert order[0] in (1, 4)
    assert order[1] not in (1, 4)
    assert ranking.harm[1] < 0.01 < ranking.harm[2]


def test_convolutions_are_ranked_by_their_windows() -> None:
    text = """agraph (float[N,2,6,6] x) => (float[N,3,4,4] y) {
        a = Conv <pads=[1,1,1,1]> (x, w1)
        b = Relu (a)
        y = Conv (b, w2)
    }"""
    w2 = _random(3, 8, 3, 3)
    w2[:, 6] = 0
    model = parse(text, {"w1": _random(8, 2, 3, 3, seed=1), "w2": w2})
    (ranking,) = obs.obs(_evidence(model, _random(16, 2, 6, 6, seed=2)))
    assert _places(ranking)[0] == 6


class _Analytic:
    """Gradients of 0.5 |y|^2 for the chain without its ReLU."""

    def __call__(
        self, model: ir.Model, names: Sequence[str], batches: Sequence[Feeds]
    ) -> Iterator[Mapping[str, Array]]:
        w1, w2 = (np.asarray(model.graph.initializers[name].const_value) for name in ("w1", "w2"))
        for feeds in batches:
            y = feeds["x"] @ w1 @ w2
            yield {"w1": feeds["x"].T @ y @ w2.T, "w2": (feeds["x"] @ w1).T @ y}


@pytest.mark.parametrize("name", ["taylor", "fisher"])
def test_gradient_criteria_use_who_differentiates(name: str) -> None:
    w1, w2 = _random(6, 5), _random(5, 3, seed=1)
    w1[:, 3] *= 1e-3
    x = _random(40, 6, seed=2)
    (ranking,) = CRITERIA[name].rank(_evidence(_chain(w1, w2), x, gradients=_Analytic()))
    assert _places(ranking)[0] == 3
    with pytest.raises(UsageError, match="needs gradients"):
        CRITERIA[name].rank(_evidence(_chain(w1, w2), x))


def test_an_unknown_criterion_is_named() -> None:
    with pytest.raises(UsageError, match="no importance 'l3'"):
        criterion("l3")
