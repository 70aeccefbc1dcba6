"""Transformers written as exporters and optimisers of graphs expect them."""

from __future__ import annotations

import math

import torch
from torch import nn

__all__ = ["ClassicBert", "Decoder"]


class _SelfAttention(nn.Module):
    """Multi-head attention in plain products, its sizes constants, as BERT's first implementation has it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.size = heads, width // heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(x.size(0), x.size(1), self.heads, self.size).permute(0, 2, 1, 3)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        query, key, value = (self._split(layer(x)) for layer in (self.query, self.key, self.value))
        scores = torch.matmul(query, key.transpose(-1, -2)) / math.sqrt(self.size) + mask
        context = torch.matmul(torch.softmax(scores, -1), value).permute(0, 2, 1, 3).contiguous()
        return context.view(context.size(0), context.size(1), self.heads * self.size)


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.attention, self.output = _SelfAttention(width, heads), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x = self.first(self.output(self.attention(x, mask)) + x)
        return self.second(self.down(nn.functional.gelu(self.up(x))) + x)


class ClassicBert(nn.Module):
    """The graph that onnxruntime.transformers.optimizer was written for."""

    def __init__(self, width: int = 32, heads: int = 4, layers: int = 2, vocabulary: int = 96) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(vocabulary, width), nn.Embedding(32, width)
        self.segments, self.norm = nn.Embedding(2, width), nn.LayerNorm(width)
        self.layers = nn.ModuleList(_Layer(width, heads, 2 * width) for _ in range(layers))
        self.register_buffer("positions", torch.arange(32)[None])

    def forward(self, ids: torch.Tensor, segments: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        """Return the hidden states of the tokens `ids`, int64 [batch, sequence]."""
        mask = (1.0 - attended[:, None, None, :].to(torch.float32)) * -10000.0
        x = self.words(ids) + self.segments(segments) + self.places(self.positions[:, : ids.size(1)])
        x = self.norm(x)
        for layer in self.layers:
            x = layer(x, mask)
        return x


class Decoder(nn.Module):
    """Layers of causal attention and a gelu; several heads of queries may share one of keys and values."""

    def __init__(self, width: int = 32, heads: int = 4, shared: int = 1, layers: int = 2) -> None:
        super().__init__()
        self.heads, self.shared, size = heads, shared, width // heads
        kept = width // shared
        self.layers = nn.ModuleList(
            nn.ModuleDict(
                {
                    "norm": nn.RMSNorm(width, eps=1e-6),
                    "query": nn.Linear(width, width),
                    "key": nn.Linear(width, kept),
                    "value": nn.Linear(width, kept),
                    "output": nn.Linear(width, width),
                    "up": nn.Linear(width, 2 * width),
                    "down": nn.Linear(2 * width, width),
                }
            )
            for _ in range(layers)
        )
        self.size = size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the states after all layers, [batch, sequence, width] like `x`."""
        for layer in self.layers:
            normal = layer["norm"](x)
            query, key, value = (
                layer[name](normal).unflatten(-1, (-1, self.size)).transpose(1, 2) for name in ("query", "key", "value")
            )
            said = nn.functional.scaled_dot_product_attention(
                query, key, value, is_causal=True, enable_gqa=self.shared > 1
            )
            x = x + layer["output"](said.transpose(1, 2).flatten(-2))
            x = x + layer["down"](nn.functional.gelu(layer["up"](x)))
        return x
