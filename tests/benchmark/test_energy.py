"""Counters of energy, in a tree that looks like the one of Linux."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import parse

import graphopt
from graphopt.benchmark import energy, timing
from graphopt.benchmark.energy import opened

RANGE = 262_143_328_850


def zone(root: Path, folder: str, name: str, microjoules: int, most: int = RANGE) -> Path:
    """A zone, and the file of its counter."""
    path = root / folder
    path.mkdir(parents=True)
    (path / "name").write_text(f"{name}\n")
    (path / "max_energy_range_uj").write_text(f"{most}\n")
    (path / "energy_uj").write_text(f"{microjoules}\n")
    return path / "energy_uj"


@pytest.fixture
def counters(tmp_path: Path) -> dict[str, Path]:
    """Two sockets, one with memory; and what must not be counted again."""
    (tmp_path / "intel-rapl").mkdir()
    (tmp_path / "dtpm").mkdir()
    return {
        "intel-rapl:0": zone(tmp_path, "intel-rapl:0", "package-0", 1_000),
        "intel-rapl:0:0": zone(tmp_path, "intel-rapl:0:0", "core", 500),
        "intel-rapl:0:1": zone(tmp_path, "intel-rapl:0:1", "dram", 70, most=100),
        "intel-rapl:1": zone(tmp_path, "intel-rapl:1", "package-1", 9_000),
        "intel-rapl:2": zone(tmp_path, "intel-rapl:2", "psys", 20_000),
        "intel-rapl-mmio:0": zone(tmp_path, "intel-rapl-mmio:0", "package-0", 1_000),
    }


def test_packages_and_their_memory_are_added_up(tmp_path: Path, counters: dict[str, Path]) -> None:
    meter, told = opened(tmp_path)
    assert meter is not None
    assert told == "package-0, dram, package-1"
    assert meter() == 0
    for number, counter in enumerate(counters.values()):
        counter.write_text(f"{int(counter.read_text()) + 2**number}\n")
    assert meter() == 2**0 + 2**2 + 2**3


def test_a_counter_that_starts_over_is_counted_on(tmp_path: Path, counters: dict[str, Path]) -> None:
    meter, _ = opened(tmp_path)
    assert meter is not None
    counters["intel-rapl:0:1"].write_text("20\n")  # 70 to 100, then 0 to 20
    assert meter() == 50
    counters["intel-rapl:0:1"].write_text("10\n")  # and all around once more but 10
    assert meter() == 50 + 90
    counters["intel-rapl:1"].write_text("9500\n")
    assert meter() == 50 + 90 + 500
    assert meter() == 50 + 90 + 500


def test_why_there_are_none(tmp_path: Path) -> None:
    assert opened(tmp_path / "nowhere") == (None, "")
    (tmp_path / "intel-rapl").mkdir()
    assert opened(tmp_path) == (None, "")
    counter = zone(tmp_path, "intel-rapl:0", "package-0", 1)
    counter.write_text("no number")
    meter, why = opened(tmp_path)
    assert meter is None
    assert why.startswith(f"the counters in {tmp_path} cannot be read: invalid literal")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_counters_for_root_only(tmp_path: Path, counters: dict[str, Path]) -> None:
    counters["intel-rapl:0"].chmod(0)
    assert opened(tmp_path) == (None, f"the counters in {tmp_path} may be read by root only")


def test_refused_counters_are_told_from_missing_ones(
    tmp_path: Path, counters: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: Path) -> int:
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr(energy, "_number", refuse)
    assert opened(tmp_path) == (None, f"the counters in {tmp_path} may be read by root only")


def test_each_model_gets_the_energy_of_its_turns() -> None:
    """Counted around the timed runs of a turn, and nothing in between."""
    joules = 0

    def runner(microjoules: int) -> timing.Clock:
        def run() -> int:
            nonlocal joules
            joules += microjoules
            return 0

        return run

    plan = timing.Plan(runs=250, warmup=2)
    thrifty, greedy = timing.measure([runner(2_000), runner(5_000)], plan, meter=lambda: joules)
    assert thrifty.millijoules == 2
    assert greedy.millijoules == 5
    (unmetered,) = timing.measure([runner(2_000)], plan)
    assert unmetered.millijoules is None


@pytest.mark.parametrize("loss", [lambda counter: counter.unlink(), lambda counter: counter.write_text("")])
@pytest.mark.parametrize("reads", [0, 1, 6])
def test_counters_that_vanish_while_they_are_read_leave_no_figure(
    loss: Callable[[Path], object], reads: int, tmp_path: Path, counters: dict[str, Path]
) -> None:
    """Whether in a model's turn or between two; what one model was told before is no figure either."""
    meter, told = opened(tmp_path)
    assert meter is not None
    runs = itertools.count(-2)  # two of them warm up

    def run() -> None:
        number = next(runs)
        if number == reads:
            loss(counters["intel-rapl:0"])
        counters["intel-rapl:1"].write_text(f"{10_000 + 1_000 * number}\n")

    samples = timing.measure([run, run], timing.Plan(runs=5, warmup=1), meter=meter)
    assert [one.millijoules for one in samples] == [None, None]
    assert [len(one.runs) for one in samples] == [5, 5]
    counters["intel-rapl:0"].write_text("9000\n")
    assert energy.silence(meter, told).startswith(f"{told} cannot be read any more: "), "once lost, always lost"


def test_what_fails_in_a_run_is_not_taken_for_a_counter() -> None:
    def run() -> None:
        raise FileNotFoundError("model")

    with pytest.raises(FileNotFoundError, match="model"):
        timing.measure([run], timing.Plan(runs=1, warmup=1), meter=lambda: 0)


TEXT = "g (float[1,4] x) => (float[1,4] y) {y = Relu(x)}"


def test_bench_shows_it_where_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    reads = iter(range(0, 10**9, 3_000))
    monkeypatch.setattr(energy, "opened", lambda: (lambda: next(reads), "package-0"))
    table = graphopt.bench([parse(TEXT), parse(TEXT)], runs=10, warmup=1)
    assert [row.energy_mj for row in table.rows] == [3, 3]  # a turn is a run: 3,000 microjoules between two reads
    data = table.to_dict()
    assert data["models"][0]["energy_mj"] == 3
    assert data["settings"]["energy"] == "package-0"
    assert "3.00 mJ" in table._repr_html_()


@pytest.mark.parametrize("why", ["", "package-0 stand still", "package-0 cannot be read any more: gone"])
def test_bench_says_why_it_cannot(why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if why:
        zone(tmp_path, "intel-rapl:0", "package-0", 5)
    if why.endswith("gone"):
        number = energy._number
        reads = itertools.count()

        def read(file: Path) -> int:
            if next(reads) > 2:
                raise OSError(5, "gone")
            return number(file)

        monkeypatch.setattr(energy, "_number", read)
    monkeypatch.setattr(energy, "ROOT", tmp_path)
    table = graphopt.bench([parse(TEXT)], runs=2, warmup=1)
    assert table.rows[0].energy_mj is None
    assert table.settings.energy == why
    html = table._repr_html_()
    assert html.count("energy is not measured") == bool(why)
    assert why in html
    assert "<th>energy</th>" not in html
