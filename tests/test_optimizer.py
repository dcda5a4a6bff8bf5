"""``graphopt.optimize``: kinds in and out, proof, and what happens when a pass is wrong."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnx_ir as ir
import pytest
from harness import lines, parse

import graphopt
from graphopt import proto
from graphopt.errors import ModelError, NotEquivalent, UsageError
from graphopt.pipeline.base import Context, GraphPass, Outcome, Pass, RulePass, Safety
from graphopt.rewrite.match import Match, Miss

TEXT = """agraph (float[N,4] x) => (float[N,4] y) {
    a = Identity (x)
    b = Relu (a)
    c = Identity (b)
    y = Exp (c)
}"""
CLEAN = ["b = Relu(x)", "y = Exp(b)"]


@dataclasses.dataclass(frozen=True)
class ReluToNeg(RulePass):
    """A wrong pass."""

    name = "relu-to-neg"
    safety = Safety.EXACT
    ops = ("Relu",)

    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        return Match(node, build=lambda builder: [builder.op("Neg", [node.inputs[0]])])


def test_proto_in_proto_out_and_the_callers_object_is_untouched() -> None:
    given = proto.to_proto(parse(TEXT))
    before = given.SerializeToString()
    result, report = graphopt.optimize(given, with_report=True)
    assert isinstance(result, onnx.ModelProto)
    assert [node.op_type for node in result.graph.node] == ["Relu", "Exp"]
    assert given.SerializeToString() == before
    assert report.status == "proven"
    assert report.before.nodes == 4
    assert report.after.nodes == 2


def test_ir_in_ir_out_and_the_callers_object_is_untouched() -> None:
    given = parse(TEXT)
    result = graphopt.optimize(given, validate=False)
    assert isinstance(result, ir.Model)
    assert lines(result) == CLEAN
    assert len(given.graph) == 4


def test_graphsurgeon_in_graphsurgeon_out() -> None:
    given = gs.import_onnx(proto.to_proto(parse(TEXT)))
    result = graphopt.optimize(given, validate=False)
    assert isinstance(result, gs.Graph)
    assert [node.op for node in result.nodes] == ["Relu", "Exp"]
    assert len(given.nodes) == 4


def test_path_gives_an_ir_model(tmp_path: Path) -> None:
    path = tmp_path / "a model.onnx"
    graphopt.save(parse(TEXT), path)
    assert lines(graphopt.optimize(path, validate=False)) == CLEAN


def test_anything_else_is_a_clear_mistake() -> None:
    with pytest.raises(UsageError, match="is no model"):
        graphopt.optimize(42)


def test_wrong_pass_is_found_dropped_and_named() -> None:
    result, report = graphopt.optimize(parse(TEXT), ["eliminate-identity", ReluToNeg()], with_report=True)
    assert lines(result) == CLEAN
    assert [one.name for one in report.dropped] == ["relu-to-neg"]
    assert report.status == "proven"


def test_wrong_pass_under_strict_is_an_error() -> None:
    with pytest.raises(NotEquivalent, match="relu-to-neg"):
        graphopt.optimize(parse(TEXT), ["eliminate-identity", ReluToNeg()], strict=True)


def test_original_that_cannot_run_is_unproven_and_only_exact_passes_apply() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "unknown.domain" : 1]>
    agraph (float[N,4,8,8] x) => (float[N,4,8,8] y) {
        a = Identity (x)
        b = Conv (a, w)
        c = BatchNormalization (b, s, s, s, s)
        y = unknown.domain.Strange (c)
    }"""
    weights = {"w": np.ones((4, 4, 1, 1), np.float32), "s": np.ones(4, np.float32)}
    result, report = graphopt.optimize(parse(text, weights), with_report=True)
    assert report.status == "unproven"
    assert "fuse-conv-batchnorm" in [one.name for one in report.dropped]
    assert lines(result) == [
        "b = Conv(x, w)",
        "c = BatchNormalization(b, s, s, s, s)",
        "y = unknown.domain::Strange(c)",
    ]


def test_exact_leaves_numeric_passes_out() -> None:
    _, report = graphopt.optimize(parse(TEXT), exact=True, validate=False, with_report=True)
    assert {one.safety for one in report.passes} == {"exact"}


def test_exact_passes_must_give_identical_bits() -> None:
    @dataclasses.dataclass(frozen=True)
    class NearlyExact(ReluToNeg):
        name = "nearly-exact"

        def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
            nudge = np.nextafter(np.float32(1), np.float32(2))
            if context.producer(node.inputs[0], "Mul") is not None:
                return None
            return Match(
                node, build=lambda b: [b.op("Relu", [b.op("Mul", [node.inputs[0], b.constant(nudge.reshape(()))])])]
            )

    _, report = graphopt.optimize(parse(TEXT), ["eliminate-identity", NearlyExact()], with_report=True)
    assert [one.name for one in report.dropped] == ["nearly-exact"]
    assert report.equivalence is not None
    assert report.equivalence.identical


def test_report_explains_what_did_not_apply() -> None:
    text = "agraph (float[N,4] x) => (float[N,4] y) { y = Identity (x) }"
    _, report = graphopt.optimize(parse(text), explain=True, validate=False, with_report=True)
    assert "eliminate-identity" in report.misses
    assert not report.changed


def test_report_is_plain_data_and_renders(tmp_path: Path) -> None:
    import json

    _, report = graphopt.optimize(parse(TEXT), with_report=True)
    assert json.loads(json.dumps(report.to_dict()))["status"] == "proven"
    assert "eliminate-identity" in report.to_text()
    assert "<table>" in report._repr_html_()


def test_stock_onnx_ir_pass_runs_in_the_pipeline() -> None:
    import onnx_ir.passes.common as stock

    result, report = graphopt.optimize(parse(TEXT), [stock.IdentityEliminationPass()], with_report=True)
    assert lines(result) == CLEAN
    assert [one.name for one in report.passes] == ["ir-identity-elimination"]


def test_loss_into_graphsurgeon_is_refused_unless_allowed() -> None:
    from graphopt.interop import graphsurgeon

    model = parse(TEXT)
    model.metadata_props["author"] = "someone"
    with pytest.raises(ModelError, match="metadata of the model"):
        graphsurgeon.from_ir(model)
    assert isinstance(graphsurgeon.from_ir(model, allow_loss=True), gs.Graph)


def test_new_names_keep_clear_of_a_map_tail() -> None:
    model = proto.to_proto(
        parse(
            """<ir_version: 8, opset_import: ["" : 17, "ai.onnx.ml" : 3]>
            agraph (float[N,2] x) => (float[N,2] p) { w = Add (a, a)  p = MatMul (x, w) }""",
            {"a": np.eye(2, dtype=np.float32)},
        )
    )
    model.graph.node.append(
        onnx.helper.make_node("ZipMap", ["p"], ["w_1"], domain="ai.onnx.ml", classlabels_int64s=[0, 1])
    )
    mapping = model.graph.output.add(name="w_1").type.sequence_type.elem_type.map_type
    mapping.key_type, mapping.value_type.tensor_type.elem_type = onnx.TensorProto.INT64, onnx.TensorProto.FLOAT
    result, report = graphopt.optimize(model, with_report=True)
    assert report.status == "proven"
    assert [node.op_type for node in result.graph.node] == ["MatMul", "ZipMap"]


def test_report_says_what_the_verifier_noted() -> None:
    model = parse("agraph (float[N] x) => (float[N] y) { a = Abs (x)  b = Neg (a)  c = Sqrt (b)  y = Identity (c) }")
    _, report = graphopt.optimize(model, with_report=True)
    assert any("proves little" in note for note in report.notes)
    assert "proves little" in report.to_text()


def test_one_name_is_no_list_of_names() -> None:
    model = parse("agraph (float[4] x) => (float[4] y) { y = Identity(x) }")
    with pytest.raises(UsageError, match="takes a list"):
        graphopt.optimize(model, "fold-constants")
    with pytest.raises(UsageError, match="takes a list"):
        graphopt.optimize(model, skip="fold-constants")


@dataclasses.dataclass(frozen=True)
class ExpToNeg(GraphPass):
    """A lossy pass; ``claim`` is the operator of the model that it says it equals."""

    name = "exp-to-neg"
    safety = Safety.LOSSY
    claim: str = "Neg"

    def run(self, model: ir.Model, context: Context) -> Outcome:
        reference = model.clone()
        for one, op_type in ((model, "Neg"), (reference, self.claim)):
            for node in one.graph:
                if node.op_type == "Exp":
                    node.op_type = op_type
        return Outcome(1, None, reference if self.claim else None)


def test_lossy_pass_comes_first_and_the_rest_is_compared_with_what_it_left() -> None:
    chosen: list[str | Pass] = ["eliminate-identity", ExpToNeg(), "fold-constants"]
    result, report = graphopt.optimize(parse(TEXT), chosen, with_report=True)
    assert lines(result) == ["b = Relu(x)", "y = Neg(b)"]
    assert report.status == "proven"
    first = report.passes[0]
    assert (first.name, first.safety, first.count) == ("exp-to-neg", "lossy", 1)
    assert report.before.ops == {"Identity": 2, "Relu": 1, "Exp": 1}
    assert "compared with the model after exp-to-neg" in report.notes
    assert report.proof().startswith("Proven equal to the model after exp-to-neg.")
    assert report.to_dict()["baseline"] == "the model after exp-to-neg"
    assert not report.dropped


def test_wrong_pass_after_a_lossy_one_is_found() -> None:
    result, report = graphopt.optimize(parse(TEXT), [ReluToNeg(), ExpToNeg()], with_report=True)
    assert [one.name for one in report.dropped] == ["relu-to-neg"]
    assert [node.op_type for node in result.graph] == ["Identity", "Relu", "Identity", "Neg"]
    assert report.status == "proven"


def test_lossy_pass_that_does_not_what_it_claims_is_left_out() -> None:
    wrong: list[str | Pass] = ["eliminate-identity", ExpToNeg("Sin")]
    result, report = graphopt.optimize(parse(TEXT), wrong, with_report=True)
    assert lines(result) == CLEAN
    assert [one.name for one in report.dropped] == ["exp-to-neg"]
    assert report.baseline == "the original"
    assert not any("compared with" in note for note in report.notes)
    with pytest.raises(NotEquivalent, match="exp-to-neg"):
        graphopt.optimize(parse(TEXT), wrong, strict=True)


def test_lossy_pass_that_claims_nothing_is_said_to() -> None:
    _, report = graphopt.optimize(parse(TEXT), [ExpToNeg("")], with_report=True)
    assert report.status == "proven"
    assert any("nothing that its own result could be compared with" in note for note in report.notes)


def test_lossy_pass_without_validation() -> None:
    result, report = graphopt.optimize(parse(TEXT), [ExpToNeg("Sin")], validate=False, with_report=True)
    assert "Neg" in [node.op_type for node in result.graph]
    assert report.status == "unverified"
    assert not any("compared with the model" in note for note in report.notes)


def test_lossy_pass_on_a_model_that_cannot_run_is_left_out() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "unknown.domain" : 1]>
    agraph (float[N,4] x) => (float[N,4] y) { a = Exp (x)  y = unknown.domain.Strange (a) }"""
    result, report = graphopt.optimize(parse(text), [ExpToNeg()], with_report=True)
    assert [node.op_type for node in result.graph] == ["Exp", "Strange"]
    assert [one.name for one in report.dropped] == ["exp-to-neg"]
    assert report.status == "unproven"
    with pytest.raises(NotEquivalent, match="cannot be run"):
        graphopt.optimize(parse(text), [ExpToNeg()], strict=True)


def test_lossy_passes_run_once_and_in_order() -> None:
    @dataclasses.dataclass(frozen=True)
    class MoreNeg(GraphPass):
        """Finds more to do whenever it is asked."""

        name = "more-neg"
        safety = Safety.LOSSY

        def run(self, model: ir.Model, context: Context) -> Outcome:
            last = model.graph[-1]
            node = ir.node("Neg", [last.inputs[0]])
            model.graph.insert_before(last, node)
            last.replace_input_with(0, node.outputs[0])
            return Outcome(1, None, model.clone())

    result, report = graphopt.optimize(parse(TEXT), [MoreNeg(), "eliminate-identity", ExpToNeg()], with_report=True)
    assert [node.op_type for node in result.graph] == ["Relu", "Neg", "Neg"]
    assert report.baseline == "the model after more-neg, exp-to-neg"
