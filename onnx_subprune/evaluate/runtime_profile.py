"""Where the time of a model goes: seconds per node, from the profile that ONNX Runtime writes of its own runs.

The nodes are those that really run, after ONNX Runtime's optimiser: several nodes of the model may have become one,
which goes by the name of one of them. A run with the profile on is slower than one without, because every node is
clocked and written down; so these seconds say which share of the time a node takes, and `bench` says how long the
model takes.

A node that holds a body (If, Loop, Scan) counts without the nodes of its body, which are counted themselves: no time
is counted twice. ONNX Runtime's clock has microseconds. On a GPU it clocks the launch of the kernels of a node, not
their work, unless every launch waits for them (CUDA_LAUNCH_BLOCKING=1 in the environment before the first session).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_subprune.errors import InternalError, OptionError
from onnx_subprune.formatting import html_table, milliseconds
from onnx_subprune.model import TemporaryFolder, open_session, run

__all__ = ["NodeTime", "OperatorTime", "Profile", "profile"]

Array = NDArray[Any]
Shape = tuple[int, ...]

_SUFFIX = "_kernel_time"
_RUN = "model_run"
_MICROSECONDS = 1e-6


@dataclass(frozen=True)
class NodeTime:
    """One node of the optimised graph.

    Attributes:
        name: what ONNX Runtime calls it; `<operator>_<number>` if it has no name.
        operator: its operator after fusion, such as FusedConv or SkipLayerNormalization.
        provider: the execution provider that ran it.
        seconds: time in one run, without its bodies: the mean of the middle half of all runs.
        input_shapes: of what it read in the last run, () for a scalar; inputs left out are not there.
        output_shapes: of what it gave.

    """

    name: str
    operator: str
    provider: str
    seconds: float
    input_shapes: tuple[Shape, ...] = ()
    output_shapes: tuple[Shape, ...] = ()


@dataclass(frozen=True)
class OperatorTime:
    """All nodes of one operator on one provider.

    Attributes:
        operator: its ONNX name.
        provider: ONNX Runtime's name of the execution provider.
        nodes: number of them.
        seconds: of all of them together in one run.

    """

    operator: str
    provider: str
    nodes: int
    seconds: float


@dataclass(frozen=True)
class Profile:
    """Where the time of one model goes.

    Attributes:
        nodes: in the order in which they first ran.
        seconds: a whole run with the profile on, from the call to its return.
        seconds_between: what a run spends outside its nodes, writing the profile included.
        runs: how many runs were clocked.
        providers: the execution providers of the session, most wanted first.

    """

    nodes: tuple[NodeTime, ...]
    seconds: float
    seconds_between: float
    runs: int
    providers: tuple[str, ...]

    def _repr_html_(self) -> str:
        rows = [(time.operator, str(time.nodes), milliseconds(1e3 * time.seconds)) for time in self.operators]
        return html_table(("operator", "nodes", "in one run"), rows, f"Where {milliseconds(1e3 * self.seconds)} go")

    @property
    def node_seconds(self) -> float:
        """Time within nodes, in one run."""
        return sum(node.seconds for node in self.nodes)

    @property
    def operators(self) -> tuple[OperatorTime, ...]:
        """The nodes summed by operator and provider, the longest first."""
        sums: dict[tuple[str, str], list[float]] = defaultdict(list)
        for node in self.nodes:
            sums[node.operator, node.provider].append(node.seconds)
        times = [OperatorTime(*key, len(seconds), sum(seconds)) for key, seconds in sums.items()]
        return tuple(sorted(times, key=lambda time: (-time.seconds, time.operator, time.provider)))

    @property
    def fallen(self) -> tuple[NodeTime, ...]:
        """The nodes that ran elsewhere than on the most wanted provider."""
        return tuple(node for node in self.nodes if node.provider != self.providers[0])


def profile(
    model: onnx.ModelProto,
    feeds: Mapping[str, Array],
    *,
    providers: Sequence[str] = ("cpu",),
    threads: int | None = None,
    runs: int = 20,
    warmup: int = 3,
) -> Profile:
    """Run `model` with ONNX Runtime's profile on and return its seconds per node.

    Args:
        model: what to profile.
        feeds: an array per input.
        providers: execution providers, most wanted first.
        threads: intra-op threads of the runtime; None for its own choice.
        runs: clocked runs.
        warmup: runs before those, not counted.

    Raises:
        OptionError: no runs, or a provider that did not load.
        DataError: the feeds do not fit.
        ModelError: ONNX Runtime refuses the model, or fails on it.

    """
    if runs < 1 or warmup < 0:
        raise OptionError(
            f"at least one run expected, found {runs} runs and {warmup} for warm-up; change these options"
        )
    with TemporaryFolder() as folder:
        where = folder / "profile"
        session = open_session(model, providers, threads=threads, packed=True, profile_to=where, widen=False)
        try:
            for _ in range(warmup + runs):
                run(session, feeds)
        finally:
            # The file is written here, and whatever failed, not where the user stands.
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return _profile_of_runs(events, runs, tuple(session.get_providers()))


def _profile_of_runs(events: Sequence[Mapping[str, Any]], runs: int, providers: tuple[str, ...]) -> Profile:
    """Return the profile of the last `runs` runs."""
    whole_runs = [event for event in events if event["cat"] == "Session" and event["name"] == _RUN]
    spans = sorted((event["ts"], event["ts"] + event["dur"]) for event in whole_runs)[-runs:]
    if len(spans) < runs:
        raise InternalError(f"{runs} runs expected in ONNX Runtime's profile, found {len(spans)}: it may be cut off")
    nodes = [event for event in events if event["cat"] == "Node" and event["name"].endswith(_SUFFIX)]
    starts = np.array([start for start, _ in spans])
    own = _own_time(nodes)
    seconds: dict[tuple[str, str, str], Array] = {}
    last: dict[tuple[str, str, str], Mapping[str, Any]] = {}
    for event, spent in sorted(zip(nodes, own, strict=True), key=lambda pair: pair[0]["ts"]):
        number = int(np.searchsorted(starts, event["ts"], side="right")) - 1
        if number < 0:
            continue
        key = _key(event)
        seconds.setdefault(key, np.zeros(runs))[number] += spent
        last[key] = event["args"]
    times = tuple(_node_time(key, seconds[key], last[key]) for key in seconds)
    whole = np.array([float(end - start) for start, end in spans])
    between = np.maximum(0.0, whole - sum(seconds.values()))
    return Profile(
        times,
        _MICROSECONDS * _mean_of_middle_half(whole),
        _MICROSECONDS * _mean_of_middle_half(between),
        runs,
        providers,
    )


def _key(event: Mapping[str, Any]) -> tuple[str, str, str]:
    return event["name"].removesuffix(_SUFFIX), event["args"]["op_name"], event["args"]["provider"]


def _own_time(events: Sequence[Mapping[str, Any]]) -> list[float]:
    """Return the microseconds of every event without those of the events inside it on the same thread."""
    own = [float(event["dur"]) for event in events]
    open_on: dict[int, list[int]] = defaultdict(list)
    # Of two that start in the same microsecond the longer one is around the other.
    for index in sorted(range(len(events)), key=lambda i: (events[i]["ts"], -events[i]["dur"])):
        event = events[index]
        around = open_on[event["tid"]]
        while around and not _is_inside(event, events[around[-1]]):
            around.pop()
        if around:
            own[around[-1]] -= event["dur"]
        around.append(index)
    return [max(0.0, spent) for spent in own]


def _is_inside(event: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    # A node of no length stands beside its neighbour: only what ends within is a part of it.
    return bool(event["ts"] + event["dur"] <= other["ts"] + other["dur"] and event["ts"] < other["ts"] + other["dur"])


def _node_time(key: tuple[str, str, str], microseconds: Array, arguments: Mapping[str, Any]) -> NodeTime:
    reads, gives = (_shapes(arguments.get(f"{side}_type_shape", ())) for side in ("input", "output"))
    return NodeTime(*key, _MICROSECONDS * _mean_of_middle_half(microseconds), reads, gives)


def _shapes(entries: Iterable[Mapping[str, Sequence[int]]]) -> tuple[Shape, ...]:
    return tuple(tuple(shape) for entry in entries for shape in entry.values())


def _mean_of_middle_half(values: Array) -> float:
    """Return the mean of the middle half: as calm as a median, and finer than the microseconds of the clock."""
    ordered = np.sort(values)
    cut = len(ordered) // 4
    return float(ordered[cut : len(ordered) - cut].mean())
