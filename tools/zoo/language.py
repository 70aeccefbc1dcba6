"""Networks of transformers, built from small configurations with random weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import transformers
from transformers import AutoConfig

from zoo.entries import Input
from zoo.export import Offer, offers_of
from zoo.recipes import BOTH, DYNAMO, TORCHSCRIPT, Recipe, image, tokens

__all__ = ["offers"]

VOCABULARY = 96
ENCODER = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}
DECODER = {**ENCODER, "num_key_value_heads": 2, "head_dim": 8, "use_cache": False, "pad_token_id": 0}
VISION = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}


def _build(kind: str, auto: Any, options: dict[str, Any]) -> Callable[[], Any]:
    def build() -> Any:
        config = AutoConfig.for_model(kind, **options)
        make = auto.from_config if hasattr(auto, "from_config") else auto._from_config
        return make(config, attn_implementation="eager")

    return build


def _hidden(found: Any) -> Any:
    return found.logits if "logits" in found else found.last_hidden_state


def _text(
    name: str,
    kind: str,
    options: dict[str, Any],
    *,
    auto: str = "AutoModel",
    mask: bool = True,
    exporters: tuple[str, ...] = BOTH,
) -> Recipe:
    inputs, sizes = tokens(VOCABULARY, mask)
    title = f"{auto}({kind})"
    build = _build(kind, getattr(transformers, auto), options)
    family = "language model" if auto == "AutoModelForCausalLM" else "text encoder"
    return Recipe(name, family, "transformers", title, build, inputs, sizes, exporters, keywords=True, output=_hidden)


def _image(
    name: str,
    kind: str,
    options: dict[str, Any],
    side: int,
    *,
    auto: str = "AutoModel",
    exporters: tuple[str, ...] = BOTH,
    output: Callable[[Any], Any] = _hidden,
    second: int | None = None,
) -> Recipe:
    (shape,), sizes = image(side, second)
    inputs = (Input("pixel_values", shape.shape),)
    build = _build(kind, getattr(transformers, auto), options)
    return Recipe(
        name,
        "vision transformer" if "num_attention_heads" in options else "classifier",
        "transformers",
        f"{auto}({kind})",
        build,
        inputs,
        sizes,
        exporters,
        keywords=True,
        output=output,
    )


def _t5_encoder() -> Any:
    config = AutoConfig.for_model("t5", vocab_size=VOCABULARY, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4)
    return transformers.T5EncoderModel._from_config(config, attn_implementation="eager")


def _t5() -> Any:
    config = AutoConfig.for_model(
        "t5",
        vocab_size=VOCABULARY,
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        use_cache=False,
    )
    return transformers.T5ForConditionalGeneration._from_config(config, attn_implementation="eager")


def _bart() -> Any:
    config = AutoConfig.for_model(
        "bart",
        vocab_size=VOCABULARY,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=64,
        use_cache=False,
    )
    return transformers.BartModel._from_config(config, attn_implementation="eager")


def _whisper_encoder() -> Any:
    config = AutoConfig.for_model(
        "whisper",
        vocab_size=VOCABULARY,
        d_model=32,
        encoder_layers=2,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_source_positions=32,
        num_mel_bins=16,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    return transformers.WhisperModel._from_config(config, attn_implementation="eager").encoder


def _wav2vec2() -> Any:
    config = AutoConfig.for_model(
        "wav2vec2",
        vocab_size=32,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        conv_dim=(16, 16, 16),
        conv_kernel=(10, 3, 2),
        conv_stride=(5, 2, 2),
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
    )
    return transformers.Wav2Vec2ForCTC._from_config(config, attn_implementation="eager")


def _clip() -> Any:
    config = AutoConfig.for_model(
        "clip",
        text_config={**ENCODER, "projection_dim": 16, "eos_token_id": 2},
        vision_config={**VISION, "projection_dim": 16},
        projection_dim=16,
    )
    return transformers.CLIPModel._from_config(config, attn_implementation="eager")


def _detr() -> Any:
    backbone = AutoConfig.for_model(
        "resnet",
        embedding_size=16,
        hidden_sizes=[16, 32, 48, 64],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage4"],
    )
    config = AutoConfig.for_model(
        "detr",
        use_timm_backbone=False,
        backbone_config=backbone,
        backbone=None,
        use_pretrained_backbone=False,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        num_queries=8,
        num_labels=5,
    )
    return transformers.DetrForObjectDetection._from_config(config, attn_implementation="eager")


def _logits_and_boxes(found: Any) -> Any:
    return found.logits, found.pred_boxes


class _Cached(torch.nn.Module):
    """A decoder that continues: keys and values of what came before in, of all that came so far out."""

    def __init__(self, decoder: Any) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, input_ids: Any, attention_mask: Any, **past: Any) -> Any:
        """Token ids [batch, sequence], mask [batch, past + sequence]; `past` is `past_key_values.LAYER.key` ..."""
        cache = transformers.DynamicCache(config=self.decoder.config)
        for layer in range(len(past) // 2):
            stem = f"past_key_values.{layer}"
            cache.update(past[f"{stem}.key"], past[f"{stem}.value"], layer)
        found = self.decoder(input_ids=input_ids, attention_mask=attention_mask, past_key_values=cache, use_cache=True)
        return found.logits, *(tensor for layer in cache.layers for tensor in (layer.keys, layer.values))


def _cached(name: str, kind: str, options: dict[str, Any], heads: int) -> Recipe:
    """Return a decoder of two layers with its cache as inputs and outputs; the second time it starts empty."""
    build = _build(kind, transformers.AutoModelForCausalLM, options)
    past = [
        Input(f"past_key_values.{layer}.{part}", ("batch", heads, "past", 8))
        for layer in (0, 1)
        for part in ("key", "value")
    ]
    (ids, _), _ = tokens(VOCABULARY)
    inputs = (ids, Input("attention_mask", ("batch", "total"), "int64", 2), *past)
    sizes = (
        {"batch": 2, "sequence": 5, "past": 7, "total": 12},
        {"batch": 3, "sequence": 6, "past": 0, "total": 6},
    )
    return Recipe(
        name,
        "language model",
        "transformers",
        f"AutoModelForCausalLM({kind}), KV cache",
        lambda: _Cached(build()),
        inputs,
        sizes,
        keywords=True,
    )


def _texts() -> Iterator[Recipe]:
    yield _text("bert", "bert", {**ENCODER}, auto="AutoModel")
    yield _text(
        "bert_classifier", "bert", {**ENCODER}, auto="AutoModelForSequenceClassification", exporters=(TORCHSCRIPT,)
    )
    yield _text(
        "minilm",
        "bert",
        {**ENCODER, "hidden_size": 24, "num_attention_heads": 6, "num_hidden_layers": 3},
        exporters=(DYNAMO,),
    )
    small = {
        "vocab_size": VOCABULARY,
        "dim": 32,
        "n_layers": 2,
        "n_heads": 4,
        "hidden_dim": 64,
        "max_position_embeddings": 64,
    }
    yield _text("distilbert", "distilbert", small, auto="AutoModelForMaskedLM")
    yield _text("roberta", "roberta", {**ENCODER, "pad_token_id": 1})
    yield _text("albert", "albert", {**ENCODER, "embedding_size": 16})
    yield _text("electra", "electra", {**ENCODER, "embedding_size": 16}, exporters=(TORCHSCRIPT,))
    yield _text("mpnet", "mpnet", ENCODER, exporters=(TORCHSCRIPT,))
    yield _text(
        "deberta_v2",
        "deberta-v2",
        {
            **ENCODER,
            "relative_attention": True,
            "position_buckets": 8,
            "pos_att_type": ["p2c", "c2p"],
            "share_att_key": True,
        },
        exporters=(TORCHSCRIPT,),
    )
    yield _text(
        "modernbert",
        "modernbert",
        {**ENCODER, "pad_token_id": 0, "global_attn_every_n_layers": 2, "local_attention": 8},
    )
    gpt = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "use_cache": False}
    causal: dict[str, Any] = {"auto": "AutoModelForCausalLM"}
    yield _text("gpt2", "gpt2", gpt, **causal)
    yield _text("opt", "opt", {**DECODER, "ffn_dim": 64, "word_embed_proj_dim": 32}, **causal)
    yield _text("llama", "llama", DECODER, **causal)
    yield _cached("gpt2_cache", "gpt2", {**gpt, "use_cache": True}, 4)
    yield _cached("llama_cache", "llama", {**DECODER, "use_cache": True}, 2)
    yield _text("mistral", "mistral", {**DECODER, "sliding_window": 8}, **causal, exporters=(DYNAMO,))
    yield _text("qwen2", "qwen2", DECODER, **causal)
    yield _text("qwen3", "qwen3", DECODER, **causal)
    yield _text("gemma", "gemma", DECODER, **causal)
    yield _text("gemma2", "gemma2", {**DECODER, "query_pre_attn_scalar": 8, "sliding_window": 8}, **causal)
    yield _text("phi", "phi", {**DECODER, "partial_rotary_factor": 0.5}, **causal)
    yield _text("phi3", "phi3", {**DECODER, "bos_token_id": 1, "eos_token_id": 2}, **causal)
    yield _text("gpt_neox", "gpt_neox", {**ENCODER, "use_cache": False, "rotary_pct": 0.5}, **causal)
    yield _text(
        "bloom",
        "bloom",
        {"vocab_size": VOCABULARY, "hidden_size": 32, "n_layer": 2, "n_head": 4, "use_cache": False},
        **causal,
    )
    yield _text(
        "falcon",
        "falcon",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "new_decoder_architecture": False,
            "multi_query": True,
            "use_cache": False,
        },
        **causal,
    )
    yield _text("stablelm", "stablelm", {**DECODER, "partial_rotary_factor": 0.5}, **causal, exporters=(TORCHSCRIPT,))


def _images() -> Iterator[Recipe]:
    classify: dict[str, Any] = {"auto": "AutoModelForImageClassification"}
    yield _image("vit", "vit", VISION, 32, **classify)
    yield _image("deit", "deit", VISION, 32, auto="DeiTForImageClassification")
    yield _image(
        "beit",
        "beit",
        {**VISION, "use_relative_position_bias": True, "use_absolute_position_embeddings": False},
        32,
        **classify,
    )
    yield _image("dinov2", "dinov2", {**VISION, "mlp_ratio": 2}, 32)
    yield _image(
        "segformer",
        "segformer",
        {
            "hidden_sizes": [8, 16, 24, 32],
            "depths": [1, 1, 1, 1],
            "num_attention_heads": [1, 2, 2, 4],
            "sr_ratios": [4, 2, 2, 1],
            "decoder_hidden_size": 32,
            "num_labels": 5,
        },
        64,
        auto="AutoModelForSemanticSegmentation",
        second=96,
    )
    yield _image(
        "yolos",
        "yolos",
        {**VISION, "image_size": [32, 32], "num_detection_tokens": 6, "num_labels": 5},
        32,
        auto="AutoModelForObjectDetection",
        output=_logits_and_boxes,
    )
    yield _image("mobilenet_v1", "mobilenet_v1", {"depth_multiplier": 0.25, "tf_padding": True}, 64, **classify)
    yield _image(
        "mobilevit",
        "mobilevit",
        {"image_size": 64, "hidden_sizes": [24, 32, 40], "neck_hidden_sizes": [8, 16, 24, 24, 32, 40, 96]},
        64,
        **classify,
    )
    yield _image("poolformer", "poolformer", {"hidden_sizes": [16, 24, 32, 40], "depths": [1, 1, 2, 1]}, 64, **classify)
    yield _image(
        "pvt",
        "pvt",
        {
            "image_size": 64,
            "hidden_sizes": [8, 16, 24, 32],
            "depths": [1, 1, 1, 1],
            "num_attention_heads": [1, 2, 2, 4],
        },
        64,
        **classify,
    )


def _others() -> Iterator[Recipe]:
    ids, _ = tokens(VOCABULARY, mask=True)
    lengths = ({"batch": 2, "sequence": 12, "target": 5}, {"batch": 3, "sequence": 7, "target": 4})
    target = Input("decoder_input_ids", ("batch", "target"), "int64", VOCABULARY)
    named: dict[str, Any] = {"keywords": True, "output": _hidden}
    text, pair = "text encoder", "sequence to sequence"
    yield Recipe("t5_encoder", text, "transformers", "T5EncoderModel", _t5_encoder, ids, tokens(1)[1], **named)
    yield Recipe("t5", pair, "transformers", "T5ForConditionalGeneration", _t5, (*ids, target), lengths, **named)
    yield Recipe("bart", pair, "transformers", "BartModel", _bart, (*ids, target), lengths, **named)
    sound = (Input("input_features", ("batch", 16, 64)),)
    yield Recipe(
        "whisper_encoder",
        "audio",
        "transformers",
        "WhisperEncoder",
        _whisper_encoder,
        sound,
        ({"batch": 2}, {"batch": 3}),
        **named,
    )
    wave = (Input("input_values", ("batch", "samples")),)
    times = ({"batch": 2, "samples": 1600}, {"batch": 1, "samples": 2000})
    yield Recipe("wav2vec2", "audio", "transformers", "Wav2Vec2ForCTC", _wav2vec2, wave, times, **named)
    both = (ids[0], Input("pixel_values", ("batch", 3, 32, 32)), ids[1])
    yield Recipe(
        "clip",
        "text and image",
        "transformers",
        "CLIPModel",
        _clip,
        both,
        tokens(1)[1],
        keywords=True,
        output=lambda found: (found.text_embeds, found.image_embeds),
    )
    pixels = (Input("pixel_values", ("batch", 3, 64, 64)),)
    yield Recipe(
        "detr",
        "detection",
        "transformers",
        "DetrForObjectDetection",
        _detr,
        pixels,
        ({"batch": 2}, {"batch": 3}),
        keywords=True,
        output=_logits_and_boxes,
    )


def offers() -> Iterator[Offer]:
    """Yield the entries."""
    yield from offers_of([*_texts(), *_images(), *_others()])
