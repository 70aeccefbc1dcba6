"""What a graph still needs, and what still depends on its inputs, once some nodes read nothing or less.

Nodes are numbered in topological order and read and make named tensors. A *cut* node reads nothing any more, and so
depends on nothing; of a node with *dropped* reads, some reads are gone. Both questions are answered with work that goes
with what changes, not with the size of the graph, because they are asked for every group:

- A node is needed while one of its readers is. Readers that are gone are counted, up the graph.
- A node varies while one of its reads does. Reads that have settled are counted, down the graph. Some nodes lie on all
  ways from the inputs to an output: once one of these has settled, so has the output, and the walk may end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property

__all__ = ["Reachability"]

# Outputs of which the nodes on all ways to them are looked for: that costs a walk over the graph for each.
_WALKED = 8


class Reachability:
    """A graph without edits, asked about many small ones.

    Args:
        reads: for every node, in topological order, the names of what it reads, once for each time it does.
        makes: for every node the names of what it makes.
        sources: names of what varies by itself.
        sinks: names of what has to be there in the end.

    """

    def __init__(
        self,
        reads: Sequence[Sequence[str]],
        makes: Sequence[Sequence[str]],
        sources: Collection[str],
        sinks: Sequence[str],
    ) -> None:
        self._reads = reads
        self._makes = makes
        self._sources = frozenset(sources)
        self._sinks = sinks
        self.maker = {name: place for place, names in enumerate(makes) for name in names}
        self.readers: dict[str, Counter[int]] = {}
        for place, names in enumerate(reads):
            for name in names:
                self.readers.setdefault(name, Counter())[place] += 1

    def needed(self, cut: Collection[int] = (), dropped: Mapping[int, Collection[str]] | None = None) -> set[int]:
        """Return the nodes that the sinks need, those that are cut included."""
        needed: set[int] = set()
        pending = list(self._sinks)
        while pending:
            place = self.maker.get(pending.pop())
            if place is not None and place not in needed:
                needed.add(place)
                pending.extend(self._left_reads(place, cut, dropped or {}))
        return needed

    def varying(self, cut: Collection[int] = (), dropped: Mapping[int, Collection[str]] | None = None) -> set[str]:
        """Return the names of what depends on the sources, these included."""
        varying = set(self._sources)
        for place, names in enumerate(self._makes):
            if not varying.isdisjoint(self._left_reads(place, cut, dropped or {})):
                varying.update(names)
        return varying

    def is_needed(self, place: int) -> bool:
        """Whether the sinks need a node of the whole graph."""
        return place in self._needed_nodes

    def unneeded(self, cut: Collection[int], dropped: Mapping[int, Collection[str]]) -> set[int]:
        """Return the nodes that the sinks need in the whole graph, but no more."""
        gone: Counter[int] = Counter()
        unneeded: set[int] = set()
        pending = [name for place in cut if place in self._needed_nodes for name in self._reads[place]]
        for place, names in dropped.items():
            if place in self._needed_nodes and place not in cut:
                pending.extend(name for name in self._reads[place] if name in names)
        while pending:
            place = self.maker.get(pending.pop(), -1)
            gone[place] += 1
            if place >= 0 and gone[place] == self._uses[place]:
                unneeded.add(place)
                pending.extend(self._left_reads(place, cut, dropped))
        return unneeded

    def settles(self, cut: Collection[int], dropped: Mapping[int, Collection[str]]) -> bool:
        """Whether a sink that depends on the sources in the whole graph does so no more."""
        settled: set[int] = set()
        gone: Counter[int] = Counter()
        for place, names in dropped.items():
            gone[place] = sum(name in names and name in self._varying for name in self._reads[place])
        reached = [place for place in cut if self._varying_reads[place]]
        reached += [place for place in dropped if place not in cut and self._has_settled(place, gone)]
        while reached:
            place = reached.pop()
            if place in self._separators:
                return True
            settled.add(place)
            for name in self._makes[place]:
                if name in self._sinks_that_vary:
                    return True
                for reader, times in self.readers.get(name, {}).items():
                    if reader in cut or reader in settled or name in dropped.get(reader, ()):
                        continue
                    gone[reader] += times
                    if self._has_settled(reader, gone):
                        reached.append(reader)
        return False

    def _has_settled(self, place: int, gone: Mapping[int, int]) -> bool:
        return 0 < self._varying_reads[place] == gone[place]

    def _left_reads(self, place: int, cut: Collection[int], dropped: Mapping[int, Collection[str]]) -> Sequence[str]:
        if place in cut:
            return ()
        names = dropped.get(place)
        return self._reads[place] if names is None else [name for name in self._reads[place] if name not in names]

    @cached_property
    def _needed_nodes(self) -> set[int]:
        return self.needed()

    @cached_property
    def _uses(self) -> Counter[int]:
        """How often needed nodes and sinks read what a node makes."""
        names = [name for place in self._needed_nodes for name in self._reads[place]]
        return Counter(self.maker[name] for name in (*names, *self._sinks) if name in self.maker)

    @cached_property
    def _varying(self) -> set[str]:
        return self.varying()

    @cached_property
    def _sinks_that_vary(self) -> set[str]:
        return self._varying.intersection(self._sinks)

    @cached_property
    def _varying_reads(self) -> list[int]:
        return [sum(name in self._varying for name in names) for names in self._reads]

    @cached_property
    def _separators(self) -> set[int]:
        """Nodes that lie on all ways from the sources to one of the first sinks."""
        sinks = [name for name in dict.fromkeys(self._sinks) if name in self._varying and name not in self._sources]
        return {place for name in sinks[:_WALKED] for place in self._on_all_ways(name)}

    def _on_all_ways(self, sink: str) -> list[int]:
        """Return the nodes that all ways to a sink share: in topological order no read reaches past them."""
        behind: set[int] = set()
        pending = [sink]
        while pending:
            place = self.maker.get(pending.pop())
            if place is not None and place not in behind and self._varying_reads[place]:
                behind.add(place)
                pending.extend(self._reads[place])
        # The last node, of those before, that reads something made so far.
        furthest = max((p for p in behind if not self._sources.isdisjoint(self._reads[p])), default=-1)
        shared: list[int] = []
        for place in sorted(behind):
            if furthest <= place:
                shared.append(place)
            readers = (reader for name in self._makes[place] for reader in self.readers.get(name, ()))
            furthest = max(furthest, max((reader for reader in readers if reader in behind), default=-1))
        return shared
