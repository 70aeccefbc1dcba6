"""Small networks of the shapes that people build: images and video."""

# ruff: noqa: D102, N812 - `forward` is what the class says, and `F` is the custom of this library.

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = [
    "CRNN",
    "VAE",
    "Denoiser",
    "Generator",
    "Hourglass",
    "MultiTask",
    "OptionA",
    "PixelShuffle",
    "Siamese",
    "StyleTransfer",
    "UNet",
    "Video",
    "Yolo",
]


def conv(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, activation: type[nn.Module] = nn.ReLU
) -> nn.Sequential:
    """Return a convolution with BatchNorm and an activation."""
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), activation())


class UNet(nn.Module):
    """Two levels down and up; skips by concatenation, one upsampled by interpolation, one by transposed convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.bottom = conv(3, 16), conv(16, 24), conv(24, 32)
        self.up = nn.ConvTranspose2d(32, 24, 2, 2)
        self.third, self.fourth = conv(48, 24), conv(40, 16)
        self.head = nn.Conv2d(16, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.first(x)
        b = self.second(F.max_pool2d(a, 2))
        c = self.bottom(F.max_pool2d(b, 2))
        b = self.third(torch.cat([self.up(c), b], 1))
        b = F.interpolate(b, size=a.shape[2:], mode="bilinear", align_corners=False)
        return self.head(self.fourth(torch.cat([a, b], 1)))


class _Split(nn.Module):
    """Half of the channels go through residual blocks; all stages are concatenated (C2f)."""

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        half = channels // 2
        self.enter = conv(channels, channels, 1, activation=nn.SiLU)
        self.blocks = nn.ModuleList(
            nn.Sequential(conv(half, half, 3, activation=nn.SiLU), conv(half, half, 3, activation=nn.SiLU))
            for _ in range(depth)
        )
        self.leave = conv(half * (2 + depth), channels, 1, activation=nn.SiLU)

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.enter(x).chunk(2, 1))
        for block in self.blocks:
            parts.append(parts[-1] + block(parts[-1]))
        return self.leave(torch.cat(parts, 1))


class Yolo(nn.Module):
    """A one-stage detector: split blocks, pooling pyramid, path aggregation, decoupled heads joined over scales."""

    def __init__(self, decode: bool = False) -> None:
        super().__init__()
        act = nn.SiLU
        self.stem = nn.Sequential(conv(3, 16, 3, 2, act), conv(16, 32, 3, 2, act), _Split(32, 1))
        self.middle = nn.Sequential(conv(32, 48, 3, 2, act), _Split(48, 2))
        self.deep = conv(48, 64, 3, 2, act)
        self.squeeze, self.spread = conv(64, 32, 1, activation=act), conv(128, 64, 1, activation=act)
        self.lateral = nn.Sequential(conv(112, 48, 1, activation=act), _Split(48, 1))
        self.down = conv(48, 48, 3, 2, act)
        self.join = conv(112, 64, 1, activation=act)
        self.boxes = nn.ModuleList(
            nn.Sequential(conv(c, 16, 3, activation=act), nn.Conv2d(16, 16, 1)) for c in (48, 64)
        )
        self.classes = nn.ModuleList(
            nn.Sequential(conv(c, 16, 3, activation=act), nn.Conv2d(16, 3, 1)) for c in (48, 64)
        )
        self.decode = decode
        self.register_buffer("bins", torch.arange(4.0))

    def forward(self, x: Tensor) -> Tensor:
        a = self.middle(self.stem(x))
        b = self.squeeze(self.deep(a))
        pooled = [b]
        for _ in range(3):
            pooled.append(F.max_pool2d(pooled[-1], 5, 1, 2))
        b = self.spread(torch.cat(pooled, 1))
        a = self.lateral(torch.cat([F.interpolate(b, scale_factor=2.0), a], 1))
        b = self.join(torch.cat([self.down(a), b], 1))
        heads = zip((a, b), self.boxes, self.classes, strict=True)
        joined = torch.cat([torch.cat([box(y), cls(y)], 1).flatten(2) for y, box, cls in heads], 2)
        return self._decoded(joined) if self.decode else joined

    def _decoded(self, joined: Tensor) -> Tensor:
        boxes, classes = joined.split([16, 3], 1)
        n, _, a = boxes.shape
        distances = (boxes.view(n, 4, 4, a).softmax(2) * self.bins.view(1, 1, 4, 1)).sum(2)
        left, right = distances.chunk(2, 1)
        return torch.cat([(right - left) / 2, left + right, classes.sigmoid()], 1)


class CRNN(nn.Module):
    """Convolutions, then a bidirectional LSTM over the width: a text line recogniser."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            conv(1, 16),
            nn.MaxPool2d(2),
            conv(16, 32),
            nn.MaxPool2d((4, 2)),
            conv(32, 32),
            nn.MaxPool2d((4, 1)),
        )
        self.recurrent = nn.LSTM(32, 24, num_layers=2, bidirectional=True)
        self.head = nn.Linear(48, 20)

    def forward(self, x: Tensor) -> Tensor:
        steps = self.features(x).squeeze(2).permute(2, 0, 1)
        return self.head(self.recurrent(steps)[0]).log_softmax(2)


class PixelShuffle(nn.Module):
    """Super-resolution by two with PixelShuffle, PReLU and a long skip."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, 24, 5, padding=2)
        self.slope = nn.PReLU(24)
        self.body = nn.Sequential(nn.Conv2d(24, 24, 3, padding=1), nn.PReLU(), nn.Conv2d(24, 24, 3, padding=1))
        self.leave = nn.Sequential(
            nn.Conv2d(24, 64, 3, padding=1), nn.PixelShuffle(2), nn.ReLU(), nn.Conv2d(16, 12, 3, padding=1)
        )
        self.shuffle = nn.PixelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.slope(self.enter(x))
        return self.shuffle(self.leave(x + self.body(x)))


class Denoiser(nn.Module):
    """Residual denoiser with a space-to-depth entry and channel attention."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, 32, 3, padding=1), nn.ReLU())
        self.body = nn.Sequential(conv(32, 32), conv(32, 32))
        self.attention = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(32, 8, 1), nn.ReLU(), nn.Conv2d(8, 32, 1), nn.Sigmoid()
        )
        self.leave = nn.Sequential(nn.Conv2d(32, 12, 3, padding=1), nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        y = self.enter(x)
        z = self.body(y)
        return x - self.leave(y + z * self.attention(z))


class StyleTransfer(nn.Module):
    """Reflection padding, instance normalisation, residual blocks and upsampling."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Sequential(
            nn.ReflectionPad2d(2),
            nn.Conv2d(3, 16, 5),
            nn.InstanceNorm2d(16, affine=True),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, 2, 1),
            nn.InstanceNorm2d(32),
            nn.ReLU(),
        )
        self.block = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(32, 32, 3),
            nn.InstanceNorm2d(32, affine=True),
            nn.ReLU(),
            nn.ReflectionPad2d(1),
            nn.Conv2d(32, 32, 3),
        )
        self.leave = nn.Sequential(
            nn.Upsample(scale_factor=2), nn.Conv2d(32, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 3, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        return self.leave(x + self.block(x)).tanh()


class Generator(nn.Module):
    """A DCGAN generator: a projected vector grown by transposed convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(16, 48 * 16)
        self.grow = nn.Sequential(
            nn.BatchNorm2d(48),
            nn.ReLU(),
            nn.ConvTranspose2d(48, 32, 4, 2, 1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.ConvTranspose2d(32, 16, 4, 2, 1, bias=False),
            nn.BatchNorm2d(16),
            nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(16, 3, 4, 2, 1),
            nn.Tanh(),
        )

    def forward(self, z: Tensor) -> Tensor:
        return self.grow(self.project(z).view(-1, 48, 4, 4))


class VAE(nn.Module):
    """A convolutional autoencoder through a Gaussian bottleneck (its mean, at inference)."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            conv(3, 16, 3, 2), conv(16, 32, 3, 2), nn.Flatten(), nn.Linear(32 * 64, 64), nn.ReLU()
        )
        self.moments = nn.Linear(64, 24)
        self.decoder = nn.Sequential(
            nn.Linear(12, 32 * 64),
            nn.ReLU(),
            nn.Unflatten(1, (32, 8, 8)),
            nn.ConvTranspose2d(32, 16, 2, 2),
            nn.ReLU(),
            nn.ConvTranspose2d(16, 3, 2, 2),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, logvar = self.moments(self.encoder(x)).chunk(2, 1)
        return self.decoder(mean).sigmoid(), logvar


class Siamese(nn.Module):
    """One tower, used twice; cosine similarity."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Sequential(
            conv(3, 16, 3, 2), conv(16, 32, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 16)
        )

    def forward(self, one: Tensor, two: Tensor) -> Tensor:
        return F.cosine_similarity(self.tower(one), self.tower(two))


class Hourglass(nn.Module):
    """Two stacked hourglasses with intermediate heat maps fed back."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 24, 3, 2)
        self.down = nn.ModuleList(conv(24, 24, 3, 2) for _ in range(2))
        self.inner = nn.ModuleList(conv(24, 24) for _ in range(2))
        self.skip = nn.ModuleList(conv(24, 24, 1) for _ in range(2))
        self.heat = nn.ModuleList(nn.Conv2d(24, 5, 1) for _ in range(2))
        self.back = nn.Conv2d(5, 24, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x, maps = self.stem(x), []
        for down, inner, skip, heat in zip(self.down, self.inner, self.skip, self.heat, strict=True):
            y = F.interpolate(inner(down(x)), scale_factor=2.0) + skip(x)
            maps.append(heat(y))
            x = x + y + self.back(maps[-1])
        return maps[0], maps[1]


class Video(nn.Module):
    """3-D convolutions, factored ones among them."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv3d(3, 16, 3, padding=1),
            nn.BatchNorm3d(16),
            nn.ReLU(),
            nn.MaxPool3d((1, 2, 2)),
            nn.Conv3d(16, 20, (1, 3, 3), padding=(0, 1, 1)),
            nn.ReLU(),
            nn.Conv3d(20, 24, (3, 1, 1), padding=(1, 0, 0)),
            nn.ReLU(),
            nn.AvgPool3d((8, 4, 4)),
            nn.Flatten(),
        )
        self.head = nn.Linear(96, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class MultiTask(nn.Module):
    """Three heads on shared features: classes, a box, an embedding of unit length."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(3, 16, 3, 2), conv(16, 32, 3, 2), conv(32, 48, 3, 2))
        self.classes, self.box = nn.Linear(48, 7), nn.Sequential(nn.Linear(48 * 16, 32), nn.ReLU(), nn.Linear(32, 4))
        self.embedding = nn.Linear(96, 8)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.body(x)
        mean, largest = x.mean((2, 3)), x.amax((2, 3))
        return self.classes(mean), self.box(x.flatten(1)), F.normalize(self.embedding(torch.cat([mean, largest], 1)))


class OptionA(nn.Module):
    """Two residual stages whose shortcut subsamples and pads channels with zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 16)
        self.first = nn.Sequential(conv(16, 16), nn.Conv2d(16, 16, 3, padding=1))
        self.second = nn.Sequential(conv(16, 32, 3, 2), nn.Conv2d(32, 32, 3, padding=1))
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = F.relu(x + self.first(x))
        x = F.relu(self.second(x) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 8, 8)))
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))
