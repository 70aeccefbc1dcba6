"""Small networks over sequences: text and sound."""

# ruff: noqa: D102, N812 - `forward` is what the class says, and `F` is the custom of this library.

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.own_models import conv
from zoo.own_tables import Attention

__all__ = [
    "TCN",
    "Conformer",
    "ConvTasNet",
    "Encoder",
    "GRUClassifier",
    "KeywordSpotting",
    "Tagger",
    "TextCNN",
    "Vocoder",
    "WaveNet",
]


class Tagger(nn.Module):
    """Embedding, a projection, a bidirectional LSTM and a tag per token."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.enter = nn.Embedding(50, 24), nn.Linear(24, 32)
        self.recurrent = nn.LSTM(32, 16, batch_first=True, bidirectional=True)
        self.head = nn.Sequential(nn.Linear(32, 48), nn.ReLU(), nn.Linear(48, 7))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.recurrent(self.enter(self.embedding(tokens)).relu())[0])


class GRUClassifier(nn.Module):
    """A GRU whose last state is classified."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.recurrent = nn.Embedding(50, 24), nn.GRU(24, 24, batch_first=True)
        self.head = nn.Sequential(nn.Linear(24, 32), nn.Tanh(), nn.Linear(32, 3))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.recurrent(self.embedding(tokens))[1][-1])


class TextCNN(nn.Module):
    """Parallel convolutions of several widths over embeddings, each pooled over time."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 24)
        self.filters = nn.ModuleList(nn.Conv1d(24, 16, k, padding=k // 2) for k in (3, 5))
        self.head = nn.Linear(32, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens).transpose(1, 2)
        return self.head(torch.cat([layer(x).relu().amax(2) for layer in self.filters], 1))


class Encoder(nn.Module):
    """PyTorch's own encoder layer, with scaled dot-product attention."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 32)
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=True, activation="gelu")
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.layers(self.embedding(tokens)).mean(1))


class WaveNet(nn.Module):
    """Dilated causal convolutions, gated by tanh and sigmoid, with skip connections summed over all layers."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv1d(1, 16, 1)
        self.gates = nn.ModuleList(nn.Conv1d(16, 40, 2, dilation=2**i) for i in range(4))
        self.residuals = nn.ModuleList(nn.Conv1d(20, 16, 1) for _ in range(4))
        self.skips = nn.ModuleList(nn.Conv1d(20, 24, 1) for _ in range(4))
        self.head = nn.Sequential(nn.ReLU(), nn.Conv1d(24, 32, 1), nn.ReLU(), nn.Conv1d(32, 8, 1))

    def forward(self, x: Tensor) -> Tensor:
        x, total = self.enter(x), None
        for i, (gate, residual, skip) in enumerate(zip(self.gates, self.residuals, self.skips, strict=True)):
            value, open_ = gate(F.pad(x, (2**i, 0))).chunk(2, 1)
            y = value.tanh() * open_.sigmoid()
            total = skip(y) if total is None else total + skip(y)
            x = x + residual(y)
        return self.head(total)


class ConvTasNet(nn.Module):
    """Separation: learned frames, depthwise blocks, masks for two speakers, overlap-add by transposed convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Conv1d(1, 32, 16, 8, bias=False)
        self.enter = nn.Sequential(nn.GroupNorm(1, 32), nn.Conv1d(32, 16, 1))
        self.blocks = nn.ModuleList(self._block(2**i) for i in range(2))
        self.masks = nn.Conv1d(16, 64, 1)
        self.decoder = nn.ConvTranspose1d(32, 1, 16, 8, bias=False)

    @staticmethod
    def _block(dilation: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv1d(16, 40, 1),
            nn.PReLU(),
            nn.GroupNorm(1, 40),
            nn.Conv1d(40, 40, 3, padding=dilation, dilation=dilation, groups=40),
            nn.PReLU(),
            nn.GroupNorm(1, 40),
            nn.Conv1d(40, 16, 1),
        )

    def forward(self, wave: Tensor) -> Tensor:
        frames = self.encoder(wave)
        x = self.enter(frames)
        for block in self.blocks:
            x = x + block(x)
        masks = self.masks(x).view(-1, 2, 32, x.shape[-1]).sigmoid()
        speakers = (masks * frames[:, None]).flatten(0, 1)
        return self.decoder(speakers).view(-1, 2, (x.shape[-1] - 1) * 8 + 16)


class TCN(nn.Module):
    """Temporal convolutions: pad left and right, then cut what causality forbids."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Conv1d(a, b, 3, padding=2 * d, dilation=d) for a, b, d in ((1, 16, 1), (16, 24, 2), (24, 24, 4))
        )
        self.down = nn.Conv1d(16, 24, 1)
        self.head = nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[2]
        x = self.layers[0](x)[:, :, :length].relu()
        y = self.layers[1](x)[:, :, :length].relu()
        y = self.layers[2](y)[:, :, :length].relu()
        return self.head((y + self.down(x)).transpose(1, 2))


class KeywordSpotting(nn.Module):
    """DS-CNN on a spectrogram."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [conv(1, 24, 3, 2)]
        for _ in range(2):
            layers += [
                nn.Conv2d(24, 24, 3, padding=1, groups=24, bias=False),
                nn.BatchNorm2d(24),
                nn.ReLU(),
                conv(24, 24, 1),
            ]
        self.body, self.head = nn.Sequential(*layers), nn.Linear(24, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.avg_pool2d(self.body(x), (10, 20)).flatten(1))


class Conformer(nn.Module):
    """Half-step feed-forward, attention, a convolution module with GLU, and subsampling in front."""

    def __init__(self) -> None:
        super().__init__()
        self.subsample = nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU())
        self.enter = nn.Linear(40, 32)
        self.feed = nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 64), nn.SiLU(), nn.Linear(64, 32))
        self.norm, self.attention = nn.LayerNorm(32), Attention(32, 4)
        self.before = nn.Sequential(nn.Conv1d(32, 64, 1), nn.GLU(1))
        self.after = nn.Sequential(
            nn.Conv1d(32, 32, 5, padding=2, groups=32), nn.BatchNorm1d(32), nn.SiLU(), nn.Conv1d(32, 32, 1)
        )
        self.last, self.head = nn.LayerNorm(32), nn.Linear(32, 12)

    def forward(self, mel: Tensor) -> Tensor:
        x = self.subsample(mel.transpose(1, 2)[:, None])
        x = self.enter(x.transpose(1, 2).flatten(2))
        x = x + 0.5 * self.feed(x)
        y = self.norm(x)
        x = x + self.attention(y)
        x = x + self.after(self.before(x.transpose(1, 2))).transpose(1, 2)
        return self.head(self.last(x)).log_softmax(-1)


class Vocoder(nn.Module):
    """HiFi-GAN's generator: transposed convolutions, then receptive fields of several widths averaged."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv1d(20, 48, 7, padding=3)
        self.ups = nn.ModuleList([nn.ConvTranspose1d(48, 24, 8, 4, 2), nn.ConvTranspose1d(24, 12, 4, 2, 1)])
        self.fields = nn.ModuleList(nn.ModuleList(nn.Conv1d(c, c, k, padding=k // 2) for k in (3, 7)) for c in (24, 12))
        self.leave = nn.Conv1d(12, 1, 7, padding=3)

    def forward(self, mel: Tensor) -> Tensor:
        x = self.enter(mel)
        for up, fields in zip(self.ups, self.fields, strict=True):
            x = up(F.leaky_relu(x, 0.1))
            x = sum(x + field(F.leaky_relu(x, 0.1)) for field in fields) / len(fields)
        return self.leave(F.leaky_relu(x)).tanh()
