"""Small recurrent networks: stacked, in both directions, packed, with attention, with states that come and go."""

# ruff: noqa: D102 - `forward` is what the class says

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

__all__ = ["DeepGRU", "Packed", "Seq2Seq", "SimpleRNN", "Streaming"]


class DeepGRU(nn.Module):
    """Two bidirectional GRU layers between linear ones; the last states of both directions are classified."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(20, 24)
        self.recurrent = nn.GRU(24, 16, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 5))

    def forward(self, mel: Tensor) -> Tensor:
        states, last = self.recurrent(self.enter(mel.transpose(1, 2)).relu())
        return self.head(torch.cat([states.mean(1), last[-2], last[-1]], 1))


class Packed(nn.Module):
    """Sequences of several lengths, packed, through a bidirectional LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.recurrent = nn.Embedding(50, 24), nn.LSTM(24, 16, bidirectional=True, batch_first=True)
        self.head = nn.Linear(32, 6)

    def forward(self, tokens: Tensor) -> Tensor:
        lengths = tokens[:, 0].remainder(4) + 3
        packed = pack_padded_sequence(self.embedding(tokens), lengths, batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.recurrent(packed)[0], batch_first=True)
        return self.head(states.amax(1))


class Seq2Seq(nn.Module):
    """An encoder that hands its state to a decoder, which attends to the encoder's outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(50, 16), nn.Embedding(50, 16)
        self.encoder, self.decoder = nn.LSTM(16, 24, batch_first=True), nn.LSTM(16, 24, batch_first=True)
        self.join, self.head = nn.Linear(48, 32), nn.Linear(32, 50)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        memory, state = self.encoder(self.source(source))
        x, _ = self.decoder(self.target(target), state)
        context = (x @ memory.transpose(1, 2)).softmax(-1) @ memory
        return self.head(self.join(torch.cat([x, context], -1)).tanh())


class SimpleRNN(nn.Module):
    """Elman's network with ReLU, two layers, and a value per step."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.RNN(8, 24, num_layers=2, nonlinearity="relu")
        self.head = nn.Linear(24, 2)

    def forward(self, series: Tensor) -> Tensor:
        return self.head(self.recurrent(series)[0])


class Streaming(nn.Module):
    """A chunk of sound with the states of the one before; the new states are given back."""

    def __init__(self) -> None:
        super().__init__()
        self.filters = nn.Sequential(nn.Conv1d(1, 24, 16, 8), nn.ReLU(), nn.Conv1d(24, 32, 3, padding=1), nn.ReLU())
        self.recurrent, self.head = nn.LSTM(32, 16, batch_first=True), nn.Linear(16, 1)

    def forward(self, chunk: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, ...]:
        x, state = self.recurrent(self.filters(chunk).transpose(1, 2), (hidden, cell))
        return (self.head(x.relu()).sigmoid(), *state)
