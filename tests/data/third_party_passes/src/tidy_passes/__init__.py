"""A pass package that is not graphopt's own."""

from graphopt.pipeline.registry import Entry

CATALOGUE = {"eliminate-double-negation": Entry("tidy_passes.eliminate_double_negation", "EliminateDoubleNegation")}
