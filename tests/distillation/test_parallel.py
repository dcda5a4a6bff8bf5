"""Two processes under torchrun give what one gives."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from distillation.lessons import Network

from graphopt.distillation import sampling
from graphopt.distillation.parallel import World, _normalize


def _train(root: Path, processes: int, *arguments: object) -> None:
    path = os.pathsep.join([str(root / "tests"), str(root), str(root / "passes")])
    script = str(root / "tests" / "distillation" / "workers.py")
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    done = subprocess.run(
        [sys.executable, *launcher, script, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def _load(path: Path) -> dict[str, Any]:
    with np.load(path) as arrays:
        return {name: arrays[name] for name in arrays.files}


@pytest.mark.slow
@pytest.mark.parametrize("case", ["graph", "module"])
@pytest.mark.parametrize("processes", [2, 3])
def test_several_processes_give_what_one_gives(case: str, processes: int, root: Path, tmp_path: Path) -> None:
    """With losses over pairs of samples, batch statistics, uneven parts, clipping and averages."""
    _train(root, 1, case, tmp_path / "one.npz")
    _train(root, processes, case, tmp_path / "several.npz")
    one, several = _load(tmp_path / "one.npz"), _load(tmp_path / "several.npz")
    assert one.keys() == several.keys()
    for name, array in one.items():
        np.testing.assert_allclose(several[name], array, rtol=0, atol=1e-4, err_msg=name)
    assert (one["objective.seen"] == several["objective.seen"]).all()  # each has seen the whole batch


@pytest.mark.slow
def test_a_run_of_two_processes_goes_on_to_the_same_bits(root: Path, tmp_path: Path) -> None:
    _train(root, 2, "graph", tmp_path / "a.npz", tmp_path / "run")
    for path in sorted((tmp_path / "run").iterdir())[1:]:
        path.unlink()  # the last one: the run is not over
    _train(root, 2, "graph", tmp_path / "b.npz", tmp_path / "run")
    a, b = _load(tmp_path / "a.npz"), _load(tmp_path / "b.npz")
    assert all(array.tobytes() == b[name].tobytes() for name, array in a.items())


def test_parts_of_a_batch() -> None:
    ids = np.arange(10, 17)
    for size in (1, 2, 3, 7, 9):
        parts = [sampling.share(ids, rank, size) for rank in range(size)]
        sizes = World(0, size).sizes(len(ids))
        kept = np.concatenate([part[:count] for part, count in zip(parts, sizes, strict=True)])
        assert kept.tolist() == ids.tolist()
        assert all(len(part) for part in parts)
        assert max(sizes) - min(sizes) <= 1


def test_alone_without_torchrun() -> None:
    with World.joined() as world:
        assert (world.rank, world.size, world.is_first) == (0, 1, True)
        assert world.add(torch.ones(1)).item() == 1
        assert world.share_bytes(bytearray(b"x"), torch.device("cpu")) == bytearray(b"x")


def test_batch_normalization_over_processes_equals_torch_s(tmp_path: Path) -> None:
    """In a group of one; the slow tests have more."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    try:
        for shape in ((5, 8), (5, 8, 3), (4, 8, 3, 2)):
            torch.manual_seed(0)
            kind = {2: torch.nn.BatchNorm1d, 3: torch.nn.BatchNorm1d, 4: torch.nn.BatchNorm2d}[len(shape)]
            norms = [kind(8), kind(8)]
            results = []
            for number, norm in enumerate(norms):
                x = torch.randn(shape, generator=torch.Generator().manual_seed(1)).requires_grad_()
                y = _normalize(norm, x) if number else norm(x)
                (y * torch.arange(y.numel()).view_as(y)).sum().backward()
                assert norm.weight.grad is not None
                assert x.grad is not None
                results.append([y, x.grad, norm.weight.grad, norm.running_mean, norm.running_var])
            for one, other in zip(*results, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)
            assert torch.equal(_normalize(norms[1].eval(), x), norms[1](x))
    finally:
        torch.distributed.destroy_process_group()


def test_modules_are_as_before_after_training_together() -> None:
    module = Network()
    with World(0, 2).synchronized(module):
        assert "forward" in vars(module.norm)
    assert "forward" not in vars(module.norm)
