"""Small networks over rows of tables, points and graphs."""

# ruff: noqa: D102, N812 - `forward` is what the class says, and `F` is the custom of this library.

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = [
    "Attention",
    "FTTransformer",
    "GraphNetwork",
    "PointNet",
    "SoftExperts",
    "TabularMLP",
    "TwoTower",
    "WideAndDeep",
]


class TabularMLP(nn.Module):
    """BatchNorm, Linear, SELU and a residual block."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.BatchNorm1d(13), nn.Linear(13, 48), nn.SELU())
        self.block = nn.Sequential(nn.Linear(48, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 48))
        self.head = nn.Linear(48, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        return self.head(x + self.block(x)).softmax(1)


class WideAndDeep(nn.Module):
    """Embeddings of codes beside numbers; a linear model beside a deep one, and a cross network."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = nn.ModuleList(nn.Embedding(10, 8) for _ in range(4))
        self.cross = nn.ModuleList(nn.Linear(40, 40) for _ in range(2))
        self.deep = nn.Sequential(nn.Linear(40, 48), nn.ReLU(), nn.Linear(48, 24), nn.ReLU())
        self.wide, self.head = nn.Linear(40, 1), nn.Linear(64, 1)

    def forward(self, numbers: Tensor, codes: Tensor) -> Tensor:
        x = torch.cat([numbers, *(table(codes[:, i]) for i, table in enumerate(self.embeddings))], 1)
        y = x
        for layer in self.cross:
            y = x * layer(y) + y
        return torch.sigmoid(self.wide(x) + self.head(torch.cat([y, self.deep(x)], 1)))


class Attention(nn.Module):
    """Multi-head self-attention with a fused projection, written out."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.qkv, self.out = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        q, k, v = self.qkv(x).view(n, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = (q @ k.transpose(-1, -2) * (width // self.heads) ** -0.5).softmax(-1) @ v
        return self.out(mixed.transpose(1, 2).reshape(n, length, width))


class FTTransformer(nn.Module):
    """A token per column, a class token, attention and ReGLU."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.randn(8, 24)), nn.Parameter(torch.randn(8, 24))
        self.codes = nn.Embedding(40, 24)
        self.register_buffer("offsets", torch.arange(4) * 10)
        self.token = nn.Parameter(torch.randn(1, 1, 24))
        self.attention, self.one, self.two = Attention(24, 3), nn.LayerNorm(24), nn.LayerNorm(24)
        self.wide, self.narrow, self.head = nn.Linear(24, 64), nn.Linear(32, 24), nn.Linear(24, 2)

    def forward(self, numbers: Tensor, codes: Tensor) -> Tensor:
        columns = numbers[:, :, None] * self.scale + self.shift
        x = torch.cat([self.token.expand(numbers.shape[0], -1, -1), columns, self.codes(codes + self.offsets)], 1)
        x = x + self.attention(self.one(x))
        value, gate = self.wide(self.two(x)).chunk(2, -1)
        return self.head((x + self.narrow(value * gate.relu()))[:, 0])


class TwoTower(nn.Module):
    """Embeddings through two towers; their inner product."""

    def __init__(self) -> None:
        super().__init__()
        self.user = nn.Sequential(nn.Embedding(50, 24), nn.Linear(24, 32), nn.ReLU(), nn.Linear(32, 16))
        self.item = nn.Sequential(nn.Embedding(50, 24), nn.Linear(24, 48), nn.GELU(), nn.Linear(48, 16))

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        return (F.normalize(self.user(user)) * F.normalize(self.item(item))).sum(1)


class SoftExperts(nn.Module):
    """A dense mixture of experts: all experts in one batched product, weighed by a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(13, 24)
        self.gate = nn.Linear(24, 4)
        self.up, self.down = nn.Parameter(torch.randn(4, 24, 32) * 0.2), nn.Parameter(torch.randn(4, 32, 24) * 0.2)
        self.head = nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        experts = torch.einsum("neh,ehd->ned", torch.einsum("nd,edh->neh", x, self.up).relu(), self.down)
        return self.head(x + (self.gate(x).softmax(1)[:, :, None] * experts).sum(1))


class PointNet(nn.Module):
    """Shared pointwise convolutions, a pooled global feature concatenated to every point."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv1d(3, 24, 1), nn.BatchNorm1d(24), nn.ReLU())
        self.second = nn.Sequential(nn.Conv1d(24, 48, 1), nn.BatchNorm1d(48), nn.ReLU())
        self.head = nn.Sequential(nn.Conv1d(72, 32, 1), nn.ReLU(), nn.Conv1d(32, 4, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        whole = self.second(x).amax(2, keepdim=True).expand(-1, -1, x.shape[2])
        return self.head(torch.cat([x, whole], 1))


class GraphNetwork(nn.Module):
    """Graph convolutions with a dense adjacency."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Linear(8, 32), nn.Linear(32, 24), nn.Linear(56, 3)

    def forward(self, nodes: Tensor, adjacency: Tensor) -> Tensor:
        weights = adjacency.softmax(1)
        x = F.relu(weights @ self.one(nodes))
        return self.head(torch.cat([x, F.elu(weights @ self.two(x))], 1))
