"""graphopt's pass library: one pass a file, declared here, found through the same entry point as anyone's.

The order of the catalogue is the order in which presets run.
"""

from __future__ import annotations

from graphopt.pipeline.registry import Entry

__all__ = ["CATALOGUE"]

_CLEANUP = ("default", "exact", "cleanup", "ort-cpu", "ort-cuda")
_EXACT = ("default", "exact", "ort-cpu", "ort-cuda")
_NUMERIC = ("default", "ort-cpu", "ort-cuda")
_ORT = ("ort-cpu", "ort-cuda")


def _entry(class_name: str, module: str, presets: tuple[str, ...]) -> Entry:
    return Entry(f"graphopt_passes.{module}", class_name, presets)


CATALOGUE: dict[str, Entry] = {
    "eliminate-dead-nodes": _entry("EliminateDeadNodes", "eliminate_dead_nodes", _CLEANUP),
    "inline-functions": _entry("InlineFunctions", "inline_functions", _EXACT),
    "hoist-constants": _entry("HoistConstants", "hoist_constants", _EXACT),
    "fold-if": _entry("FoldIf", "fold_if", _EXACT),
    "fold-loop": _entry("FoldLoop", "fold_loop", _EXACT),
    "fold-shapes": _entry("FoldShapes", "fold_shapes", _EXACT),
    "merge-shapes": _entry("MergeShapes", "merge_shapes", _EXACT),
    "fold-constants": _entry("FoldConstants", "fold_constants", _EXACT),
    "eliminate-identity": _entry("EliminateIdentity", "eliminate_identity", _CLEANUP),
    "eliminate-dropout": _entry("EliminateDropout", "eliminate_dropout", _CLEANUP),
    "eliminate-cast": _entry("EliminateCast", "eliminate_cast", _CLEANUP),
    "eliminate-reshape": _entry("EliminateReshape", "eliminate_reshape", _CLEANUP),
    "eliminate-transpose": _entry("EliminateTranspose", "eliminate_transpose", _CLEANUP),
    "eliminate-pad": _entry("EliminatePad", "eliminate_pad", _CLEANUP),
    "eliminate-slice": _entry("EliminateSlice", "eliminate_slice", _CLEANUP),
    "eliminate-concat": _entry("EliminateConcat", "eliminate_concat", _CLEANUP),
    "eliminate-expand": _entry("EliminateExpand", "eliminate_expand", _CLEANUP),
    "eliminate-tile": _entry("EliminateTile", "eliminate_tile", _CLEANUP),
    "eliminate-split": _entry("EliminateSplit", "eliminate_split", _CLEANUP),
    "eliminate-gather": _entry("EliminateGather", "eliminate_gather", _EXACT),
    "eliminate-sequences": _entry("EliminateSequences", "eliminate_sequences", _EXACT),
    "eliminate-scatter": _entry("EliminateScatter", "eliminate_scatter", _EXACT),
    "eliminate-where": _entry("EliminateWhere", "eliminate_where", _EXACT),
    "eliminate-neutral-operands": _entry("EliminateNeutralOperands", "eliminate_neutral_operands", _EXACT),
    "eliminate-added-zeros": _entry("EliminateAddedZeros", "eliminate_added_zeros", _NUMERIC),
    "eliminate-quantize": _entry("EliminateQuantize", "eliminate_quantize", _EXACT),
    "eliminate-zero-states": _entry("EliminateZeroStates", "eliminate_zero_states", _EXACT),
    "eliminate-zero-biases": _entry("EliminateZeroBiases", "eliminate_zero_biases", _NUMERIC),
    "eliminate-idempotents": _entry("EliminateIdempotents", "eliminate_idempotents", _EXACT),
    "eliminate-involutions": _entry("EliminateInvolutions", "eliminate_involutions", _EXACT),
    "eliminate-reductions": _entry("EliminateReductions", "eliminate_reductions", _NUMERIC),
    "sink-transposes": _entry("SinkTransposes", "sink_transposes", _NUMERIC),
    "fuse-reshape-transpose": _entry("FuseReshapeTranspose", "fuse_reshape_transpose", _EXACT),
    "merge-transposes": _entry("MergeTransposes", "merge_transposes", _EXACT),
    "merge-reshapes": _entry("MergeReshapes", "merge_reshapes", _EXACT),
    "sink-reshapes": _entry("SinkReshapes", "sink_reshapes", _NUMERIC),
    "merge-slices": _entry("MergeSlices", "merge_slices", _EXACT),
    "merge-concats": _entry("MergeConcats", "merge_concats", _EXACT),
    "merge-clips": _entry("MergeClips", "merge_clips", _NUMERIC),
    "merge-reductions": _entry("MergeReductions", "merge_reductions", _NUMERIC),
    "fuse-reduce-reshape": _entry("FuseReduceReshape", "fuse_reduce_reshape", _EXACT),
    "fuse-slice-squeeze": _entry("FuseSliceSqueeze", "fuse_slice_squeeze", _EXACT),
    "convert-gather": _entry("ConvertGather", "convert_gather", _EXACT),
    "convert-range": _entry("ConvertRange", "convert_range", _EXACT),
    "fuse-conv-batchnorm": _entry("FuseConvBatchNorm", "fuse_conv_batchnorm", _NUMERIC),
    "fuse-conv-affine": _entry("FuseConvAffine", "fuse_conv_affine", _NUMERIC),
    "fuse-affine-conv": _entry("FuseAffineConv", "fuse_affine_conv", _NUMERIC),
    "fuse-pad-conv": _entry("FusePadConv", "fuse_pad_conv", _NUMERIC),
    "fuse-conv-conv": _entry("FuseConvConv", "fuse_conv_conv", _NUMERIC),
    "fuse-conv-sum": _entry("FuseConvSum", "fuse_conv_sum", _NUMERIC),
    "fuse-matmul-matmul": _entry("FuseMatMulMatMul", "fuse_matmul_matmul", _NUMERIC),
    "fuse-matmul-affine": _entry("FuseMatMulAffine", "fuse_matmul_affine", _NUMERIC),
    "fuse-matmul-add": _entry("FuseMatMulAdd", "fuse_matmul_add", _NUMERIC),
    "fuse-transpose-gemm": _entry("FuseTransposeGemm", "fuse_transpose_gemm", _NUMERIC),
    "fuse-space-depth": _entry("FuseSpaceDepth", "fuse_space_depth", _NUMERIC),
    "fuse-activation": _entry("FuseActivation", "fuse_activation", _NUMERIC),
    "fuse-gelu": _entry("FuseGelu", "fuse_gelu", _NUMERIC),
    "fuse-layer-norm": _entry("FuseLayerNorm", "fuse_layer_norm", _NUMERIC),
    "fuse-rms-norm": _entry("FuseRMSNorm", "fuse_rms_norm", _NUMERIC),
    "fuse-attention": _entry("FuseAttention", "fuse_attention", ()),
    "eliminate-nan-guard": _entry("EliminateNanGuard", "eliminate_nan_guard", _ORT),
    "eliminate-repeated-heads": _entry("EliminateRepeatedHeads", "eliminate_repeated_heads", _NUMERIC),
    "fuse-rotary-embedding": _entry("FuseRotaryEmbedding", "fuse_rotary_embedding", _ORT),
    "fuse-multi-head-attention": _entry("FuseMultiHeadAttention", "fuse_multi_head_attention", _ORT),
    "fuse-packed-attention": _entry("FusePackedAttention", "fuse_packed_attention", _ORT),
    "fuse-skip-norm": _entry("FuseSkipNorm", "fuse_skip_norm", ("ort-cuda",)),
    "convert-add-to-sum": _entry("ConvertAddToSum", "convert_add_to_sum", ("default", "exact", "ort-cpu")),
    "convert-einsum": _entry("ConvertEinsum", "convert_einsum", _NUMERIC),
    "convert-pow": _entry("ConvertPow", "convert_pow", _NUMERIC),
    "convert-reciprocal": _entry("ConvertReciprocal", "convert_reciprocal", _NUMERIC),
    "convert-div-to-mul": _entry("ConvertDivToMul", "convert_div_to_mul", _NUMERIC),
    "merge-constant-operands": _entry("MergeConstantOperands", "merge_constant_operands", _NUMERIC),
    "remove-dead-channels": _entry("RemoveDeadChannels", "remove_dead_channels", _NUMERIC),
    "merge-matmuls": _entry("MergeMatMuls", "merge_matmuls", _NUMERIC),
    "deduplicate-initializers": _entry("DeduplicateInitializers", "deduplicate_initializers", _EXACT),
    "eliminate-common-subexpressions": _entry(
        "EliminateCommonSubexpressions", "eliminate_common_subexpressions", _EXACT
    ),
    "remove-unused-initializers": _entry("RemoveUnusedInitializers", "remove_unused_initializers", _CLEANUP),
    "remove-unused-inputs": _entry("RemoveUnusedInputs", "remove_unused_inputs", ()),
    "fix-dims": _entry("FixDims", "fix_dims", ()),
    "convert-opset": _entry("ConvertOpset", "convert_opset", ()),
    "convert-float16": _entry("ConvertFloat16", "convert_float16", ()),
    "convert-bfloat16": _entry("ConvertBFloat16", "convert_bfloat16", ()),
    "convert-float32": _entry("ConvertFloat32", "convert_float32", ()),
    "drop-blocks": _entry("DropBlocks", "drop_blocks", ()),
    "prune-channels": _entry("PruneChannels", "prune_channels", ()),
    "sparsify-weights": _entry("SparsifyWeights", "sparsify_weights", ()),
}
