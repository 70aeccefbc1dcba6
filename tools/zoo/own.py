"""Networks that no package has, or not small enough, in `own_models`, `own_tables` and `own_audio`; diffusers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import diffusers
from torch import nn

from zoo import own_audio, own_models, own_recurrent, own_tables
from zoo.entries import Input
from zoo.export import Offer, offers_of
from zoo.recipes import DYNAMO, TORCHSCRIPT, Recipe, Sizes, image

__all__ = ["offers"]

BATCH: tuple[Sizes, Sizes] = ({"batch": 2}, {"batch": 3})


def _diffusion() -> nn.Module:
    return diffusers.UNet2DModel(
        sample_size=16,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )


def _conditional_diffusion() -> nn.Module:
    return diffusers.UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=8,
        cross_attention_dim=24,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )


def _autoencoder() -> nn.Module:
    return diffusers.AutoencoderKL(
        block_out_channels=(16, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        latent_channels=4,
    )


def _diffusers() -> Iterator[Recipe]:
    steps = Input("timestep", ("batch",), "int64", 100)
    noisy = Input("sample", ("batch", 3, 16, 16))
    yield Recipe("diffusion_unet", "generator", "diffusers", "UNet2DModel", _diffusion, (noisy, steps), BATCH)
    latent, text = Input("sample", ("batch", 4, 16, 16)), Input("text", ("batch", "tokens", 24))
    sizes = ({"batch": 2, "tokens": 6}, {"batch": 1, "tokens": 9})
    yield Recipe(
        "conditional_diffusion_unet",
        "generator",
        "diffusers",
        "UNet2DConditionModel",
        _conditional_diffusion,
        (latent, steps, text),
        sizes,
    )
    inputs, sizes = image(32, 48)
    yield Recipe(
        "autoencoder_kl", "generator", "diffusers", "AutoencoderKL", _autoencoder, inputs, sizes, (TORCHSCRIPT,)
    )


def _own(
    name: str, family: str, build: Any, inputs: tuple[Input, ...], sizes: tuple[Sizes, Sizes] = BATCH, **more: Any
) -> Recipe:
    return Recipe(
        name,
        family,
        "own",
        build.func.__name__ if isinstance(build, partial) else build.__name__,
        build,
        inputs,
        sizes,
        **more,
    )


def _images() -> Iterator[Recipe]:
    square, batch = image(32)
    free, both = image(32, 48)
    gray = (Input("image", ("batch", 1, 32, "width")),)
    widths = ({"batch": 2, "width": 64}, {"batch": 1, "width": 96})
    yield _own("unet", "segmentation", own_models.UNet, free, both)
    yield _own("yolo", "detection", own_models.Yolo, *image(64))
    yield _own("yolo_decoded", "detection", partial(own_models.Yolo, decode=True), *image(64), exporters=(DYNAMO,))
    yield _own("crnn", "text recognition", own_models.CRNN, gray, widths, exporters=(TORCHSCRIPT,))
    yield _own("super_resolution", "image to image", own_models.PixelShuffle, free, both)
    yield _own("denoiser", "image to image", own_models.Denoiser, free, both)
    yield _own("style_transfer", "image to image", own_models.StyleTransfer, free, both, exporters=(TORCHSCRIPT,))
    yield _own("gan_generator", "generator", own_models.Generator, (Input("latent", ("batch", 16)),))
    yield _own("vae", "generator", own_models.VAE, square, batch, exporters=(DYNAMO,))
    yield _own(
        "siamese",
        "embedding",
        own_models.Siamese,
        (Input("one", ("batch", 3, 32, 32)), Input("two", ("batch", 3, 32, 32))),
    )
    yield _own("hourglass", "pose", own_models.Hourglass, *image(32))
    yield _own("c3d", "video", own_models.Video, (Input("video", ("batch", 3, 8, 16, 16)),))
    yield _own("multi_task", "classifier", own_models.MultiTask, square, batch)
    yield _own("option_a_resnet", "classifier", own_models.OptionA, square, batch)


def _rows() -> Iterator[Recipe]:
    row = (Input("features", ("batch", 13)),)
    yield _own("tabular_mlp", "tabular", own_tables.TabularMLP, row)
    codes = (Input("numbers", ("batch", 8)), Input("codes", ("batch", 4), "int64", 10))
    yield _own("wide_and_deep", "tabular", own_tables.WideAndDeep, codes)
    yield _own("ft_transformer", "tabular", own_tables.FTTransformer, codes)
    yield _own(
        "two_tower",
        "embedding",
        own_tables.TwoTower,
        (Input("user", ("batch",), "int64", 50), Input("item", ("batch",), "int64", 50)),
    )
    yield _own("mixture_of_experts", "tabular", own_tables.SoftExperts, row, exporters=(DYNAMO,))
    points = (Input("points", ("batch", 3, "count")),)
    yield _own(
        "pointnet", "points", own_tables.PointNet, points, ({"batch": 2, "count": 32}, {"batch": 1, "count": 20})
    )
    graph = (Input("nodes", ("count", 8)), Input("adjacency", ("count", "count")))
    yield _own("gcn", "graph", own_tables.GraphNetwork, graph, ({"count": 12}, {"count": 9}))


def _sequences() -> Iterator[Recipe]:
    text = (Input("tokens", ("batch", "length"), "int64", 50),)
    lengths = ({"batch": 2, "length": 11}, {"batch": 3, "length": 7})
    yield _own("lstm_tagger", "recurrent", own_audio.Tagger, text, lengths)
    yield _own("gru_classifier", "recurrent", own_audio.GRUClassifier, text, lengths)
    yield _own("text_cnn", "text classifier", own_audio.TextCNN, text, lengths)
    yield _own("transformer_encoder", "text encoder", own_audio.Encoder, text, lengths, exporters=(DYNAMO,))
    wave = (Input("wave", ("batch", 1, "samples")),)
    times = ({"batch": 2, "samples": 256}, {"batch": 1, "samples": 320})
    yield _own("wavenet", "audio", own_audio.WaveNet, wave, times)
    yield _own("conv_tasnet", "audio", own_audio.ConvTasNet, wave, times)
    yield _own("tcn", "audio", own_audio.TCN, wave, times, exporters=(TORCHSCRIPT,))
    mel = (Input("mel", ("batch", 20, "frames")),)
    frames = ({"batch": 2, "frames": 40}, {"batch": 1, "frames": 56})
    yield _own("keyword_spotting", "audio", own_audio.KeywordSpotting, (Input("mel", ("batch", 1, 20, 40)),))
    yield _own("conformer", "audio", own_audio.Conformer, mel, frames, exporters=(TORCHSCRIPT,))
    yield _own("vocoder", "audio", own_audio.Vocoder, mel, frames)


def _recurrent() -> Iterator[Recipe]:
    text = (Input("tokens", ("batch", "length"), "int64", 50),)
    lengths = ({"batch": 2, "length": 11}, {"batch": 3, "length": 7})
    mel = (Input("mel", ("batch", 20, "frames")),)
    frames = ({"batch": 2, "frames": 12}, {"batch": 1, "frames": 9})
    yield _own("gru_deep", "recurrent", own_recurrent.DeepGRU, mel, frames)
    yield _own("lstm_packed", "recurrent", own_recurrent.Packed, text, lengths, exporters=(TORCHSCRIPT,))
    pair = (Input("source", ("batch", "length"), "int64", 50), Input("target", ("batch", "steps"), "int64", 50))
    sizes = ({"batch": 2, "length": 9, "steps": 6}, {"batch": 3, "length": 7, "steps": 8})
    yield _own("lstm_seq2seq", "recurrent", own_recurrent.Seq2Seq, pair, sizes)
    series = (Input("series", ("length", "batch", 8)),)
    yield _own("rnn_simple", "recurrent", own_recurrent.SimpleRNN, series, lengths, exporters=(TORCHSCRIPT,))
    chunk = (Input("chunk", ("batch", 1, 64)), Input("hidden", (1, "batch", 16)), Input("cell", (1, "batch", 16)))
    yield _own("lstm_streaming", "recurrent", own_recurrent.Streaming, chunk)


def offers() -> Iterator[Offer]:
    """Yield the entries."""
    yield from offers_of([*_images(), *_rows(), *_sequences(), *_recurrent(), *_diffusers()])
