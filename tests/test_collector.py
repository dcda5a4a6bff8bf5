"""The paused collector."""

from __future__ import annotations

import gc

import pytest

from graphopt import collector


def test_collections_stop_and_come_back() -> None:
    assert gc.isenabled()
    with collector.paused():
        assert not gc.isenabled()
        with collector.paused():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()


def test_collections_come_back_after_an_error() -> None:
    with pytest.raises(ValueError, match="x"), collector.paused():
        raise ValueError("x")
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with collector.paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_nothing_is_frozen_for_good_and_garbage_is_still_found() -> None:
    class Node:
        me: object

    gc.collect()
    with collector.paused():
        node = Node()
        node.me = node
        del node
    assert gc.get_freeze_count() == 0
    assert gc.collect() >= 1


def test_garbage_of_many_pauses_stays_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    class Node:
        me: object
        alive = 0

        def __init__(self) -> None:
            Node.alive += 1

        def __del__(self) -> None:
            Node.alive -= 1

    monkeypatch.setattr(collector, "_FLOOR", 1000)
    gc.collect()
    others = len(gc.get_objects())
    monkeypatch.setattr(collector._LEDGER, "alive", others)
    most = 0
    for _ in range(3 * others // 1000):
        with collector.paused():
            for _ in range(1000):
                node = Node()
                node.me = node
        most = max(most, Node.alive)
    assert most < 2 * others


def test_what_somebody_froze_stays_frozen() -> None:
    gc.freeze()
    try:
        with collector.paused():
            assert gc.isenabled()
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
