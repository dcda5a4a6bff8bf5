"""Exported transformers under ``--target ort-cpu``: the last table of passes/CONTRIB.md."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import onnx
import torch
from bench.contrib import ratio, session
from bench.peers import count_nodes
from zoo.architecture import EXPORTERS, Architecture, export
from zoo.huggingface import _entry as entry
from zoo.layers import floats

import graphopt
from graphopt import proto

__all__ = ["ARCHITECTURES", "feeds", "lines"]

_LENGTHS: Final = (16, 128)
_VOCABULARY: Final = 1000
_ENCODER = {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536}
_DECODER = {"hidden_size": 512, "num_attention_heads": 8, "num_key_value_heads": 2, "intermediate_size": 1408}
_PICTURE = {"image_size": 160, "patch_size": 16, "num_hidden_layers": 3}


def _tokens(*lengths: int) -> Any:
    return lambda: [torch.randint(3, _VOCABULARY, (1, length)) for length in lengths]


def _masked() -> Sequence[torch.Tensor]:
    mask = torch.ones(1, 128, dtype=torch.int64)
    mask[0, 100:] = 0
    return (*_tokens(128)(), mask)


def _text(name: str, network: str, sizes: Any, **options: Any) -> Architecture:
    axes = {0: "N", 1: "S"}
    small = {"vocab_size": _VOCABULARY, "num_hidden_layers": 3, "max_position_embeddings": 512, "pad_token_id": 0}
    ends = {} if network.startswith("Bert") else {"bos_token_id": 1, "eos_token_id": 2}
    dynamic = {"input_ids": axes, "attention_mask": axes}
    return entry(f"wide-{name}", network, sizes, _masked, dynamic, **{**small, **ends, **options})


def _picture(name: str, **options: Any) -> Architecture:
    pixels = {"pixel_values": {0: "N"}}
    return entry(f"wide-{name}", "ViTForImageClassification", _ENCODER, floats((1, 3, 160, 160)), pixels,
                 **{**_PICTURE, **options})  # fmt: skip


ARCHITECTURES: tuple[Architecture, ...] = (
    _text("bert", "BertForSequenceClassification", _ENCODER),
    _text("bert-sdpa", "BertForSequenceClassification", _ENCODER, attn_implementation="sdpa"),
    _text("gpt2", "GPT2LMHeadModel", {"n_embd": 384, "n_head": 6, "n_inner": 1536}, n_layer=3, n_positions=512),
    _text("llama", "LlamaForCausalLM", _DECODER),
    _text("llama-sdpa", "LlamaForCausalLM", _DECODER, attn_implementation="sdpa"),
    _text("qwen3", "Qwen3ForCausalLM", _DECODER, head_dim=64),
    entry(
        "wide-t5",
        "T5ForConditionalGeneration",
        {"d_model": 384, "num_heads": 6, "d_ff": 1024},
        _tokens(128, 64),
        {"input_ids": {0: "N", 1: "S"}, "decoder_input_ids": {0: "N", 1: "T"}},
        vocab_size=_VOCABULARY,
        num_layers=2,
        d_kv=64,
    ),
    entry(
        "wide-whisper-encoder",
        "WhisperForAudioClassification",
        {"d_model": 384, "encoder_attention_heads": 6, "encoder_ffn_dim": 1536, "classifier_proj_size": 256},
        floats((1, 80, 400)),
        {"input_features": {0: "N"}},
        num_mel_bins=80,
        encoder_layers=3,
        max_source_positions=200,
    ),
    _picture("vit"),
    _picture("vit-sdpa", attn_implementation="sdpa"),
)


def feeds(model: onnx.ModelProto, length: int) -> dict[str, Any]:
    """One run's inputs for so many tokens, the last fifth of them masked out."""
    random = np.random.default_rng(0)
    sizes = {"N": 1, "S": length, "T": max(1, length // 2)}
    found: dict[str, Any] = {}
    for one in model.graph.input:
        shape = [dim.dim_value or sizes[dim.dim_param] for dim in one.type.tensor_type.shape.dim]
        if one.name == "attention_mask":
            found[one.name] = (np.arange(length) < max(1, 0.8 * length)).astype(np.int64).reshape(shape)
        elif one.type.tensor_type.elem_type == onnx.TensorProto.INT64:
            found[one.name] = random.integers(3, _VOCABULARY, shape)
        else:
            found[one.name] = random.standard_normal(shape).astype(np.float32)
    return found


_INTRODUCTION: Final = (
    "## Exported transformers",
    "",
    "Two or three layers, 384 or 512 wide, float32, from configurations without weights. CPU time relative to the",
    "original, one thread, ONNX Runtime's default optimisations on, for the portable target and for `ort-cpu`: first",
    f"for {_LENGTHS[0]} tokens, then for {_LENGTHS[1]} (pictures and sound have one length). Each result was proven.",
    "",
    "| model | nodes | portable | ort-cpu | portable | ort-cpu |",
    "|---|---|---|---|---|---|",
)


def lines(rounds: int, only: str) -> Iterator[str]:
    """The section, line by line.

    Args:
        rounds: Of each model and length.
        only: Models whose name contains this.
    """
    yield from _INTRODUCTION
    gains: list[list[float]] = []
    for architecture in [one for one in ARCHITECTURES if only in one.name]:
        for exporter in EXPORTERS:
            before = export(architecture, exporter)
            results = [_optimized(before, target) for target in ("portable", "ort-cpu")]
            sessions = [session(one) for one in (before, *results)]
            symbolic = any(dim.dim_param == "S" for one in before.graph.input for dim in one.type.tensor_type.shape.dim)
            row = [found for length in _LENGTHS[: 2 if symbolic else 1]
                   for found in ratio(sessions, feeds(before, length), rounds)[1:]]  # fmt: skip
            gains.append(row if symbolic else row * 2)
            nodes = " → ".join(str(count_nodes(one.graph.node)) for one in (before, *results))
            cells = [f"{found:.3f}" for found in row] + ["-"] * (4 - len(row))
            yield f"| {architecture.name.removeprefix('wide-')}, {exporter} | {nodes} | {' | '.join(cells)} |"
    means = [f"**{statistics.geometric_mean(column):.3f}**" for column in zip(*gains, strict=True)]
    yield f"| geometric mean | | {' | '.join(means)} |"


def _optimized(model: onnx.ModelProto, target: str) -> onnx.ModelProto:
    result, report = graphopt.optimize(proto.from_proto(model), target=target, with_report=True)
    assert report.status == "proven", report.status
    return proto.to_proto(result)
