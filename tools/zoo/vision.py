"""Networks of torchvision, narrow and shallow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import nn
from torchvision import models, ops
from torchvision.models import detection, segmentation

from zoo.export import Offer, offers_of
from zoo.recipes import DYNAMO, TORCHSCRIPT, Recipe, image

__all__ = ["offers"]

CLASSES = 10


def _vgg(layers: list[int | str], batchnorm: bool) -> nn.Module:
    features = models.vgg.make_layers(layers, batch_norm=batchnorm)
    network = models.vgg.VGG(features, num_classes=CLASSES, init_weights=True)
    network.avgpool = nn.AdaptiveAvgPool2d((2, 2))
    widest = [n for n in layers if n != "M"][-1]
    network.classifier[0] = nn.Linear(widest * 4, 64)
    network.classifier[3] = nn.Linear(64, 64)
    network.classifier[6] = nn.Linear(64, CLASSES)
    return network


def _alexnet() -> nn.Module:
    network = models.AlexNet(num_classes=CLASSES)
    network.classifier[1] = nn.Linear(256 * 36, 32)
    network.classifier[4] = nn.Linear(32, 32)
    network.classifier[6] = nn.Linear(32, CLASSES)
    return network


def _densenet() -> nn.Module:
    return models.DenseNet(
        growth_rate=8, block_config=(3, 6, 4, 3), num_init_features=16, bn_size=2, num_classes=CLASSES
    )


def _efficientnet() -> nn.Module:
    settings = partial(models.efficientnet.MBConvConfig, width_mult=0.5, depth_mult=0.5)
    rows = [
        (1, 3, 1, 32, 16, 1),
        (6, 3, 2, 16, 24, 2),
        (6, 5, 2, 24, 40, 2),
        (6, 3, 2, 40, 80, 3),
        (6, 5, 2, 80, 112, 3),
    ]
    return models.EfficientNet([settings(*row) for row in rows], 0.1, num_classes=CLASSES, last_channel=160)


def _efficientnet_v2() -> nn.Module:
    fused, plain = models.efficientnet.FusedMBConvConfig, models.efficientnet.MBConvConfig
    rows = [fused(1, 3, 1, 16, 16, 1), fused(4, 3, 2, 16, 24, 2), plain(4, 3, 2, 24, 40, 2), plain(6, 3, 2, 40, 56, 2)]
    return models.EfficientNet(rows, 0.1, num_classes=CLASSES, last_channel=128)


def _regnet(kind: str) -> nn.Module:
    ratio = 0.25 if kind == "y" else None
    parameters = models.regnet.BlockParams.from_init_params(
        depth=8, w_0=16, w_a=12.0, w_m=2.0, group_width=8, se_ratio=ratio
    )
    return models.RegNet(parameters, num_classes=CLASSES)


def _convnext() -> nn.Module:
    block = models.convnext.CNBlockConfig
    return models.ConvNeXt([block(24, 48, 2), block(48, 96, 2), block(96, None, 2)], num_classes=CLASSES)


def _swin(version: int) -> nn.Module:
    parts = models.swin_transformer
    extra = {"block": parts.SwinTransformerBlockV2, "downsample_layer": parts.PatchMergingV2} if version == 2 else {}
    return models.SwinTransformer([4, 4], 24, [2, 2], [3, 6], [4, 4], num_classes=CLASSES, **extra)


def _segmentation(head: Callable[..., nn.Module]) -> nn.Module:
    backbone = models.mobilenet_v2(width_mult=0.25).features[:8]
    body = models._utils.IntermediateLayerGetter(backbone, {"7": "out"})
    channels = backbone[7].out_channels
    return segmentation.fcn.FCN(body, head(channels, 5))


def _deeplab(channels: int, classes: int) -> nn.Module:
    return nn.Sequential(
        segmentation.deeplabv3.ASPP(channels, (4, 8, 12), 32),
        nn.Conv2d(32, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, classes, 1),
    )


def _lraspp() -> nn.Module:
    backbone = models.mobilenet_v3_small(width_mult=0.5).features
    body = models._utils.IntermediateLayerGetter(backbone, {"4": "low", "12": "high"})
    return segmentation.lraspp.LRASPP(body, backbone[4].out_channels, backbone[12].out_channels, 5, inter_channels=32)


class _Pyramid(nn.Module):
    """Feature pyramid network over a residual body, with the anchor heads of RetinaNet."""

    def __init__(self) -> None:
        super().__init__()
        backbone = models.resnet18()
        self.body = nn.Sequential(backbone.conv1, backbone.bn1, backbone.relu, backbone.maxpool, backbone.layer1)
        self.deeper = nn.ModuleList([backbone.layer2, nn.Conv2d(128, 64, 3, 2, 1)])
        self.pyramid = ops.FeaturePyramidNetwork([64, 128, 64], 32)
        self.head = detection.retinanet.RetinaNetHead(32, 3, 4)

    def forward(self, x: torch.Tensor) -> Any:
        levels = [self.body(x)]
        for stage in self.deeper:
            levels.append(stage(levels[-1]))
        found = self.pyramid({str(i): level for i, level in enumerate(levels)})
        return self.head(list(found.values()))


class _SingleShot(nn.Module):
    """SSDLite: MobileNetV2 features and separable heads on two scales."""

    def __init__(self) -> None:
        super().__init__()
        features = models.mobilenet_v2(width_mult=0.35).features
        self.first, self.second = features[:14], features[14:18]
        channels = [features[13].out_channels, features[17].out_channels]
        self.head = detection.ssdlite.SSDLiteHead(channels, [6, 6], 4, partial(nn.BatchNorm2d, eps=1e-3))

    def forward(self, x: torch.Tensor) -> Any:
        low = self.first(x)
        return self.head([low, self.second(low)])


def _resnet(block: str, **options: Any) -> nn.Module:
    return models.ResNet(getattr(models.resnet, block), [1, 1, 1], num_classes=CLASSES, **options)


def _video() -> nn.Module:
    parts = models.video.resnet
    network = parts.VideoResNet(
        parts.BasicBlock, [parts.Conv3DSimple] * 4, [1, 1, 1, 1], parts.BasicStem, num_classes=CLASSES
    )
    network.layer3, network.layer4 = nn.Identity(), nn.Identity()
    network.fc = nn.Linear(128, CLASSES)
    return network


def _short_resnet(block: str, layers: list[int], **options: Any) -> nn.Module:
    """Return a ResNet that ends after its second stage; the third and fourth hold nine tenths of the weights."""
    network = models.ResNet(getattr(models.resnet, block), [*layers, 1, 1], num_classes=CLASSES, **options)
    width = 128 * network.layer1[0].expansion
    network.layer3, network.layer4 = nn.Identity(), nn.Identity()
    network.fc = nn.Linear(width, CLASSES)
    return network


def _recipe(
    name: str, title: str, build: Callable[[], nn.Module], side: int, second: int | None = None, **more: Any
) -> Recipe:
    inputs, sizes = image(side, second)
    return Recipe(name, more.pop("family", "classifier"), "torchvision", title, build, inputs, sizes, **more)


VGG11 = [16, "M", 32, "M", 64, 64, "M", 64, 64, "M", 64, 64, "M"]
VGG16 = [16, 16, "M", 32, 32, "M", 64, 64, 64, "M", 64, 64, 64, "M", 64, 64, 64, "M"]


def offers() -> Iterator[Offer]:
    """Yield the entries."""
    yield from offers_of(
        [
            _recipe("vgg11_bn", "VGG 11-BN", partial(_vgg, VGG11, True), 64),
            _recipe("vgg16", "VGG 16", partial(_vgg, VGG16, False), 64),
            _recipe("alexnet", "AlexNet", _alexnet, 224, exporters=(TORCHSCRIPT,)),
            _recipe("resnet18", "ResNet(BasicBlock)", partial(_short_resnet, "BasicBlock", [2, 2]), 48, 64),
            _recipe("resnet50", "ResNet(Bottleneck)", partial(_short_resnet, "Bottleneck", [3, 4]), 48, 64),
            _recipe(
                "resnext50",
                "ResNet(Bottleneck, groups=32)",
                partial(_short_resnet, "Bottleneck", [2, 2], groups=32, width_per_group=2),
                48,
            ),
            _recipe(
                "wide_resnet50",
                "ResNet(Bottleneck, width_per_group=128)",
                partial(_short_resnet, "Bottleneck", [1, 1], width_per_group=128),
                48,
                exporters=(DYNAMO,),
            ),
            _recipe("densenet", "DenseNet", _densenet, 64),
            _recipe(
                "inception_v3",
                "Inception3",
                partial(models.Inception3, CLASSES, aux_logits=False, init_weights=False),
                75,
                exporters=(TORCHSCRIPT,),
            ),
            _recipe(
                "googlenet", "GoogLeNet", partial(models.GoogLeNet, CLASSES, aux_logits=False, init_weights=False), 64
            ),
            _recipe("squeezenet", "SqueezeNet 1.1", partial(models.SqueezeNet, "1_1", CLASSES), 64, 80),
            _recipe("mobilenet_v2", "MobileNetV2", partial(models.MobileNetV2, CLASSES, 0.35), 64, 96),
            _recipe(
                "mobilenet_v3_small",
                "mobilenet_v3_small",
                partial(models.mobilenet_v3_small, num_classes=CLASSES, width_mult=0.5),
                64,
            ),
            _recipe(
                "mobilenet_v3_large",
                "mobilenet_v3_large",
                partial(models.mobilenet_v3_large, num_classes=CLASSES, width_mult=0.35),
                64,
                exporters=(DYNAMO,),
            ),
            _recipe("efficientnet_b0", "EfficientNet(MBConvConfig)", _efficientnet, 64),
            _recipe("efficientnet_v2", "EfficientNet(FusedMBConvConfig)", _efficientnet_v2, 64),
            _recipe(
                "shufflenet_v2",
                "ShuffleNetV2",
                partial(models.ShuffleNetV2, [2, 4, 2], [24, 32, 64, 128, 128], CLASSES),
                64,
            ),
            _recipe("mnasnet", "MNASNet", partial(models.MNASNet, 0.35, CLASSES), 64, exporters=(TORCHSCRIPT,)),
            _recipe("regnet_x", "RegNet", partial(_regnet, "x"), 64, exporters=(TORCHSCRIPT,)),
            _recipe("regnet_y", "RegNet(se_ratio=0.25)", partial(_regnet, "y"), 64),
            _recipe("convnext", "ConvNeXt", _convnext, 64),
            _recipe("swin", "SwinTransformer", partial(_swin, 1), 32),
            _recipe("swin_v2", "SwinTransformer(SwinTransformerBlockV2)", partial(_swin, 2), 32),
            _recipe(
                "vit_torchvision",
                "VisionTransformer",
                partial(models.VisionTransformer, 32, 8, 3, 4, 64, 128, num_classes=CLASSES),
                32,
            ),
            _recipe(
                "maxvit",
                "MaxVit",
                partial(models.MaxVit, (64, 64), 16, 4, [16, 32], [1, 1], 8, 0.1, num_classes=CLASSES),
                64,
                exporters=(TORCHSCRIPT,),
            ),
            _recipe(
                "fcn",
                "FCN(MobileNetV2)",
                partial(_segmentation, segmentation.fcn.FCNHead),
                64,
                96,
                family="segmentation",
            ),
            _recipe(
                "deeplab_v3", "ASPP on MobileNetV2", partial(_segmentation, _deeplab), 64, 96, family="segmentation"
            ),
            _recipe("lraspp", "LRASPP(MobileNetV3)", _lraspp, 64, 96, family="segmentation"),
            _recipe("retinanet", "FeaturePyramidNetwork, RetinaNetHead", _Pyramid, 64, family="detection"),
            _recipe("ssdlite", "SSDLiteHead on MobileNetV2", _SingleShot, 96, 128, family="detection"),
        ]
    )
