"""Micro-graphs of the feature table (``bench.micrographs``): each is what it claims, and no trap springs."""

from __future__ import annotations

import onnx
import pytest
from bench.micrographs import CASES, TRAPS
from bench.micrographs.case import Case, at_least, kinds, within
from bench.micrographs.judge import Judge, Outcome, summary

import graphopt


def _name(case: Case) -> str:
    return f"{case.row}: {case.name}"


def _optimized(case: Case) -> Outcome:
    judge = Judge(case)
    wanted = ["default", case.option] if case.option else None
    return judge.outcome(graphopt.optimize(judge.original, wanted, validate=False))


def test_every_case_holds_what_it_is_about() -> None:
    names = [(case.row, case.name) for case in (*CASES, *TRAPS)]
    assert len(set(names)) == len(names)
    assert all(case.gone for case in CASES)
    assert not any(case.gone for case in TRAPS)
    for case in (*CASES, *TRAPS):
        model = case.model()
        onnx.checker.check_model(model, full_check=True)
        found = kinds(model)
        assert not (case.gone and within(found, case.gone)), _name(case)
        assert at_least(found, case.keep), _name(case)


def test_every_row_has_three_spellings() -> None:
    rows = [case.row for case in CASES]
    assert [row for row in dict.fromkeys(rows) if rows.count(row) < 3] == []


@pytest.mark.parametrize("case", TRAPS, ids=_name)
def test_no_trap_springs(case: Case) -> None:
    assert _optimized(case) == Outcome()


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=_name)
def test_results_stay_and_no_foreign_operators_come(case: Case) -> None:
    outcome = _optimized(case)
    assert not outcome.wrong
    assert not outcome.foreign


def test_a_wrong_result_is_seen() -> None:
    case = next(case for case in CASES if case.row == "Identity")
    wrong = case.model()
    wrong.graph.node[1].op_type = "Neg"
    del wrong.graph.node[0]
    wrong.graph.node[0].input[0] = "x"
    outcome = Judge(case).outcome(wrong)
    assert outcome.fired
    assert outcome.wrong.startswith("output[0]: differs by")
    assert summary([outcome, Outcome(fired=True), Outcome(error="crashed")], trap=False) == "1/3 !1 E1"


def test_a_sprung_trap_is_seen() -> None:
    case = next(case for case in TRAPS if case.name == "two-of-a-kind")
    merged = case.model()
    del merged.graph.node[1]
    merged.graph.node[1].input[1] = "a"
    outcome = Judge(case).outcome(merged)
    assert outcome == Outcome(fired=True)
    assert summary([outcome], trap=True) == "fired 1"
