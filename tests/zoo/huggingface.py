"""Transformers' own code, built from small configurations; each gives its logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from zoo.architecture import EXPORTERS, Architecture
from zoo.layers import HEAD_DIM, VOCABULARY, floats, scaled, tokens

__all__ = ["ARCHITECTURES"]

Sizes = Mapping[str, int | tuple[int, ...]]
"""The settings of a configuration that are prunable sizes, at full width."""

_BERT: Sizes = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64}
_LLAMA: Sizes = {**_BERT, "num_key_value_heads": 2}
_T5: Sizes = {"d_model": 32, "num_heads": 4, "d_ff": 64}
_WHISPER: Sizes = {
    "d_model": 32,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "classifier_proj_size": 16,
}

_IDS = tokens((2, 9))
_TEXT = {"input_ids": {0: "N", 1: "S"}}
_MASKED = {**_TEXT, "attention_mask": {0: "N", 1: "S"}}
_IMAGE = {"pixel_values": {0: "N"}}


class Logits(nn.Module):
    """Calls the network by its inputs' names and gives the logits alone."""

    def __init__(self, network: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.network, self.names = network, names

    def forward(self, first: Tensor, second: Tensor | None = None) -> Any:
        return self.network(**dict(zip(self.names, (first, second), strict=False))).logits


def _masked() -> tuple[Tensor, ...]:
    mask = torch.ones(2, 9, dtype=torch.int64)
    mask[1, 6:] = 0
    return *_IDS(), mask


def _entry(
    name: str,
    network: str,
    sizes: Sizes,
    inputs: Callable[[], Sequence[Tensor]] = _IDS,
    dynamic: Mapping[str, Mapping[int, str]] = _TEXT,
    *,
    exporters: Sequence[str] = EXPORTERS,
    norms: bool = True,
    **options: Any,
) -> Architecture:
    def build(width: float) -> nn.Module:
        torch.backends.mha.set_fastpath_enabled(False)
        prunable = {
            key: scaled(size, width) if isinstance(size, int) else [scaled(one, width) for one in size]
            for key, size in sizes.items()
        }
        kind = getattr(transformers, network)
        common = {"num_labels": 5, "use_cache": False, "attn_implementation": "eager"}
        return Logits(kind(kind.config_class(**{**common, **options, **prunable})), [*dynamic])

    return Architecture(name, build, inputs, [*dynamic], dynamic, exporters, norms=norms)


def _text(name: str, network: str, sizes: Sizes, **options: Any) -> Architecture:
    small = {"vocab_size": VOCABULARY, "num_hidden_layers": 2, "max_position_embeddings": 16, "pad_token_id": 0}
    return _entry(name, network, sizes, **{**small, **options})


def _causal(name: str, network: str, sizes: Sizes, **options: Any) -> Architecture:
    """With a mask: without one, transformers looks for packed sequences, by operators that ONNX lacks."""
    tokens = {"bos_token_id": 1, "eos_token_id": 2}
    return _text(name, network, sizes, inputs=_masked, dynamic=_MASKED, **tokens, **options)


ARCHITECTURES: tuple[Architecture, ...] = (
    _text("bert", "BertForSequenceClassification", _BERT),
    _text("bert-sdpa", "BertForTokenClassification", _BERT, attn_implementation="sdpa"),
    _text("bert-mask", "BertForTokenClassification", _BERT, inputs=_masked, dynamic=_MASKED),
    _text("distilbert", "DistilBertForSequenceClassification", {"dim": 32, "n_heads": 4, "hidden_dim": 64}, n_layers=2),
    _text("roberta", "RobertaForSequenceClassification", _BERT),
    _text(
        "deberta",
        "DebertaV2ForTokenClassification",
        _BERT,
        relative_attention=True,
        position_buckets=8,
        pos_att_type=["c2p", "p2c"],
        share_att_key=True,
        norm_rel_ebd="layer_norm",
        type_vocab_size=0,
    ),
    _causal("gpt2", "GPT2LMHeadModel", {"n_embd": 32, "n_head": 4, "n_inner": 64}, n_layer=2, n_positions=16),
    _causal("llama-hf", "LlamaForCausalLM", _LLAMA, norms=False),
    _causal("llama-hf-sdpa", "LlamaForCausalLM", _LLAMA, norms=False, attn_implementation="sdpa"),
    _causal("qwen2", "Qwen2ForCausalLM", _LLAMA, norms=False, tie_word_embeddings=True),
    _causal("qwen3", "Qwen3ForCausalLM", _LLAMA, norms=False, head_dim=HEAD_DIM),
    _entry(
        "t5",
        "T5ForConditionalGeneration",
        _T5,
        tokens((2, 9), (2, 7)),
        {"input_ids": {0: "N", 1: "S"}, "decoder_input_ids": {0: "N", 1: "T"}},
        norms=False,
        vocab_size=VOCABULARY,
        num_layers=2,
        d_kv=HEAD_DIM,
        relative_attention_num_buckets=8,
    ),
    _entry(
        "t5-gated",
        "T5ForTokenClassification",
        _T5,
        norms=False,
        vocab_size=VOCABULARY,
        num_layers=2,
        d_kv=HEAD_DIM,
        feed_forward_proj="gated-gelu",
    ),
    _entry(
        "whisper-encoder",
        "WhisperForAudioClassification",
        _WHISPER,
        floats((2, 16, 20)),
        {"input_features": {0: "N"}},
        num_mel_bins=16,
        encoder_layers=2,
        max_source_positions=10,
    ),
    _entry(
        "wav2vec2",
        "Wav2Vec2ForCTC",
        {**_BERT, "conv_dim": (16, 16)},
        floats((2, 200)),
        {"input_values": {0: "N"}},
        vocab_size=12,
        num_hidden_layers=2,
        num_feat_extract_layers=2,
        conv_kernel=[10, 3],
        conv_stride=[5, 2],
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=4,
    ),
    _entry(
        "vit-hf",
        "ViTForImageClassification",
        _BERT,
        floats((2, 3, 16, 16)),
        _IMAGE,
        image_size=16,
        patch_size=4,
        num_hidden_layers=2,
    ),
    _entry(
        "swin-hf",
        "SwinForImageClassification",
        {"embed_dim": 32, "num_heads": (4, 8)},
        floats((2, 3, 32, 32)),
        _IMAGE,
        image_size=32,
        patch_size=4,
        depths=[2, 2],
        window_size=4,
        mlp_ratio=2.0,
    ),
    _entry(
        "convnext-hf",
        "ConvNextForImageClassification",
        {"hidden_sizes": (16, 32)},
        floats((2, 3, 32, 32)),
        _IMAGE,
        num_stages=2,
        depths=[1, 1],
    ),
)
