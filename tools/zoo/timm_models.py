"""Networks of timm: what neither torchvision nor transformers has."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from importlib import import_module
from typing import Any

import timm
from timm import layers
from timm.models import mlp_mixer

from zoo.export import Offer, offers_of
from zoo.recipes import BOTH, DYNAMO, TORCHSCRIPT, Recipe, image

__all__ = ["offers"]

# Architecture, model of timm, side of the image, options, exporters.
TS, DY = (TORCHSCRIPT,), (DYNAMO,)
MODELS: tuple[tuple[str, str, int, dict[str, Any], tuple[str, ...]], ...] = (
    ("byobnet", "test_byobnet", 64, {}, TS),
    ("coatnet", "test_coatnet", 64, {"img_size": 64}, TS),
    ("convnext_timm", "test_convnext", 64, {}, DY),
    ("convnext_v2", "test_convnext2", 64, {}, TS),
    ("efficientnet_evonorm", "test_efficientnet_evos", 64, {}, DY),
    ("efficientnet_groupnorm", "test_efficientnet_gn", 64, {}, BOTH),
    ("efficientnet_layernorm", "test_efficientnet_ln", 64, {}, TS),
    ("mambaout", "test_mambaout", 64, {}, BOTH),
    ("nfnet", "test_nfnet", 64, {}, TS),
    ("resnet_timm", "test_resnet", 64, {}, DY),
    ("vit_timm", "test_vit", 64, {"img_size": 64}, BOTH),
    ("vit_layerscale", "test_vit3", 64, {"img_size": 64}, TS),
    ("vit_relpos", "test_vit_relpos", 64, {"img_size": 64}, DY),
    ("mlp_mixer", "mlp_mixer.MlpMixer", 32, {"img_size": 32, "patch_size": 8, "num_blocks": 2, "embed_dim": 32}, BOTH),
    (
        "resmlp",
        "mlp_mixer.MlpMixer",
        32,
        {
            "img_size": 32,
            "patch_size": 8,
            "num_blocks": 2,
            "embed_dim": 32,
            "mlp_ratio": 4,
            "block_layer": mlp_mixer.ResBlock,
            "norm_layer": mlp_mixer.Affine,
        },
        TS,
    ),
    (
        "gmlp",
        "mlp_mixer.MlpMixer",
        32,
        {
            "img_size": 32,
            "patch_size": 8,
            "num_blocks": 2,
            "embed_dim": 32,
            "mlp_ratio": 6,
            "block_layer": mlp_mixer.SpatialGatingBlock,
            "mlp_layer": layers.GatedMlp,
        },
        BOTH,
    ),
    ("convmixer", "convmixer.ConvMixer", 64, {"dim": 32, "depth": 3}, DY),
    ("ghostnet", "ghostnet_050", 64, {}, DY),
    ("hrnet", "hrnet_w18_small", 64, {}, TS),
    ("mobileone", "mobileone_s0", 64, {}, DY),
    ("dla", "dla46x_c", 64, {}, TS),
    ("res2net", "res2net50_26w_4s", 64, {"layers": (1, 1, 1, 1), "channels": (16, 24, 32, 48), "base_width": 16}, BOTH),
    ("resnest", "resnest14d", 64, {"layers": (1, 1, 1, 1), "channels": (16, 24, 32, 48)}, TS),
    ("sknet", "skresnet18", 64, {"layers": (1, 1, 1, 1), "channels": (16, 24, 32, 48)}, BOTH),
    (
        "seresnet_d",
        "seresnet50",
        64,
        {"layers": (2, 2, 1, 1), "channels": (16, 24, 32, 48), "stem_type": "deep", "stem_width": 16, "avg_down": True},
        BOTH,
    ),
    (
        "resnet_aa",
        "resnet26",
        64,
        {"layers": (1, 1, 1, 1), "channels": (16, 24, 32, 48), "aa_layer": layers.BlurPool2d},
        TS,
    ),
    ("ecaresnet", "ecaresnet26t", 64, {"layers": (1, 1, 1, 1), "channels": (16, 24, 32, 48)}, TS),
    ("resnet_v2", "resnetv2_50", 64, {"layers": (1, 2), "channels": (32, 64), "stem_chs": 16}, BOTH),
    ("vovnet", "ese_vovnet19b_slim_dw", 64, {}, DY),
    ("dpn", "dpn48b", 64, {}, TS),
    ("edgenext", "edgenext_xx_small", 64, {}, BOTH),
    (
        "levit",
        "levit_128s",
        64,
        {"img_size": 64, "embed_dim": (32, 48, 64), "num_heads": (2, 3, 4), "key_dim": 8, "depth": (1, 1, 1)},
        TS,
    ),
    ("fastvit", "fastvit_t8", 64, {}, DY),
    ("repvit", "repvit_m0_9", 64, {"embed_dim": (16, 24, 32, 40), "depth": (1, 1, 2, 1)}, TS),
    ("efficientvit", "efficientvit_b0", 64, {}, BOTH),
    ("efficientvit_m", "efficientvit_m0", 64, {"img_size": 64}, TS),
    ("cait", "cait_xxs24_224", 64, {"img_size": 64, "depth": 2, "embed_dim": 32, "num_heads": 4}, TS),
    ("xcit", "xcit_nano_12_p16_224", 64, {"img_size": 64, "depth": 2, "embed_dim": 32}, TS),
    ("crossvit", "crossvit_tiny_240", 240, {"depth": ((1, 1, 0),)}, TS),
    ("pit", "pit_ti_224", 64, {"img_size": 64, "base_dims": (16, 16, 16), "depth": (1, 1, 1)}, DY),
    (
        "tnt",
        "tnt_s_patch16_224",
        64,
        {"img_size": 64, "depth": 2, "embed_dim": 32, "inner_dim": 16, "num_heads_inner": 4, "num_heads_outer": 4},
        TS,
    ),
    (
        "twins",
        "twins_svt_small",
        64,
        {"img_size": 64, "embed_dims": (16, 32, 48, 64), "depths": (1, 1, 1, 1), "num_heads": (1, 2, 3, 4)},
        TS,
    ),
    (
        "coat",
        "coat_tiny",
        64,
        {
            "img_size": 64,
            "embed_dims": (16, 16, 16, 16),
            "serial_depths": (1, 1, 1, 1),
            "parallel_depth": 1,
            "num_heads": 8,
        },
        TS,
    ),
    ("eva", "eva02_tiny_patch14_224", 56, {"img_size": 56, "depth": 2, "embed_dim": 48, "num_heads": 3}, BOTH),
    ("hiera", "hiera_tiny_224", 64, {"img_size": (64, 64), "embed_dim": 16, "stages": (1, 1, 1, 1)}, TS),
    (
        "davit",
        "davit_tiny",
        64,
        {"embed_dims": (16, 32, 48, 64), "num_heads": (1, 2, 3, 4), "depths": (1, 1, 1, 1)},
        TS,
    ),
    (
        "sequencer",
        "sequencer2d_s",
        64,
        {"img_size": 64, "layers": (1, 1, 1, 1), "embed_dims": (16, 16, 16, 16), "hidden_sizes": (4, 8, 8, 8)},
        TS,
    ),
    ("inception_next", "inception_next_tiny", 64, {"dims": (24, 48, 64, 80), "depths": (1, 1, 1, 1)}, TS),
    ("starnet", "starnet_s050", 64, {}, DY),
    ("shvit", "shvit_s1", 64, {"embed_dim": (32, 48, 64), "partial_dim": (8, 12, 16), "depth": (1, 1, 1)}, TS),
    ("tresnet", "tresnet_m", 64, {"layers": (1, 1, 1, 1), "width_factor": 0.25}, TS),
)


def _build(model: str, options: dict[str, Any]) -> Any:
    """Return a model of timm's registry, or an instance of `module.Class`."""
    if "." not in model:
        return timm.create_model(model, num_classes=10, exportable=True, **options)
    module, name = model.split(".")
    return getattr(import_module(f"timm.models.{module}"), name)(num_classes=10, **options)


def offers() -> Iterator[Offer]:
    """Yield the entries."""
    for name, model, side, options, exporters in MODELS:
        inputs, sizes = image(side)
        build = partial(_build, model, options)
        family = "vision transformer" if "vit" in name or "img_size" in options else "classifier"
        yield from offers_of([Recipe(name, family, "timm", model, build, inputs, sizes, exporters)])
