"""Inputs where there are no real ones: sizes for open axes, and values, by name and type.

Whatever runs a model without data takes its inputs from here: the counting of MACs, timing, probes, and the inputs of
language models that calibration data leaves out.

| input                                            | value                                             |
|--------------------------------------------------|---------------------------------------------------|
| integer or bool `*mask*`, any `attention_mask`    | ones                                              |
| `position_ids`, `cache_position`                 | 0 .. t - 1                                        |
| `token_type_ids`, `use_cache_branch`             | zeros                                             |
| integer `*length*`, `*lens*`                     | the length that they count                        |
| `seqlens_k`, as ONNX Runtime's attention reads it | the length less one                               |
| float of shape [] or [1]; `*scale*`, `*ratio*`, `*temperature*` with at most one axis | 1.0          |
| other integers                                   | 0 and 1, which any vocabulary holds               |
| other floats                                     | standard normal                                   |

Keys and values of the past are empty: their open axis past the first has size 0.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_subprune.errors import OptionError
from onnx_subprune.model.session import InputSpec, concrete_shapes

__all__ = [
    "BETTER_INPUTS",
    "counted_length",
    "counts_lengths",
    "is_past",
    "known_value",
    "made_inputs",
    "made_shapes",
    "plausible_shapes",
]

BETTER_INPUTS = "give sizes that suit the model with --input-shapes, or real inputs with --data or --calib"
"""What a user can do where a network refuses inputs that are made up."""

Array = NDArray[Any]
Shape = tuple[int, ...]
Shapes = Mapping[str, Sequence[int]]

_PAST = re.compile(r"past(_key_values?)?[._](?!seq)")
_MASK = re.compile(r"mask(_|$)|(_|^)mask")
_LENGTH = re.compile(r"(^|_)(seq)?(len|lens|length|lengths)(_|$)")
_FACTOR = re.compile(r"scale|ratio|temperature")
_IMAGE_SIZES = (1, 32, 64, 224)
_LENGTHS = (1, 8, 16)
# A frame of speech, and a second of it at 16 kHz: networks that take waves cut them short many times over.
_WAVES = (512, 16_000)
_IMAGE_RANK = 4
_MOST_CHANNELS_LAST = 4


def is_past(name: str) -> bool:
    """Whether an input of that name holds keys or values of earlier tokens.

    >>> is_past("past_key_values.0.key"), is_past("past_sequence_length")
    (True, False)

    """
    return _PAST.match(name) is not None


def made_shapes(
    specs: Sequence[InputSpec],
    given: Shapes | None = None,
    *,
    image: int = 1,
    length: int = 1,
    wave: int | None = None,
    empty: bool = True,
) -> dict[str, Shape]:
    """Return a shape for every input; axes of one name agree, and an attention mask covers the past and the tokens.

    Args:
        specs: the inputs of a model.
        given: shapes by input name.
        image: the size of open heights and widths.
        length: the size of other open axes past the first, channels and states left out: these are 1.
        wave: the length of waves, floats [batch, length] or [batch, 1, length]; `length` where it is None.
        empty: whether keys and values of the past are empty; otherwise their open axis counts 1.

    Raises:
        OptionError: a given shape names no input, or does not fit it.

    >>> ids, mask = np.dtype(np.int64), np.dtype(np.int64)
    >>> specs = [InputSpec("input_ids", ("b", "t"), ids), InputSpec("attention_mask", ("b", "p + t"), mask)]
    >>> made_shapes(specs, {"input_ids": (2, 7)})
    {'input_ids': (2, 7), 'attention_mask': (2, 7)}

    """
    given = given or {}
    shapes = concrete_shapes(specs, given)
    named: dict[str, int] = {}
    for spec in specs:
        if spec.name in given:
            named |= {dim: size for dim, size in zip(spec.shape, given[spec.name], strict=True) if isinstance(dim, str)}
    free = [spec for spec in specs if spec.name not in given]
    # The mask comes last: its length is the sum of others.
    for spec in sorted(free, key=_is_attention_mask):
        own = _open_sizes(spec, image, length if wave is None or not _is_wave(spec) else wave, empty=empty)
        if _is_attention_mask(spec) and empty:
            own[-1] = _attended(specs, shapes, own[-1])
        axes = list(zip(spec.shape, own, strict=True))
        sizes = [dim if isinstance(dim, int) else _size(dim, size, named) for dim, size in axes]
        named |= {dim: size for dim, size in zip(spec.shape, sizes, strict=True) if isinstance(dim, str)}
        shapes[spec.name] = tuple(sizes)
    return shapes


def _size(dim: str | None, default: int, named: Mapping[str, int]) -> int:
    return default if dim is None else named.get(dim, default)


def _open_sizes(spec: InputSpec, image: int, length: int, *, empty: bool) -> list[int]:
    """Return the size of each axis of an input if that axis is open."""
    rank = len(spec.shape)
    if is_past(spec.name):
        return [1, *[0 if empty else 1] * (rank - 1)][:rank]
    if rank == _IMAGE_RANK:
        last = spec.shape[-1]
        if isinstance(spec.shape[1], int):
            return [1, 1, image, image]
        return [1, image, image, 1] if isinstance(last, int) and last <= _MOST_CHANNELS_LAST else [1] * rank
    return [1] + [length] * (rank - 1) if rank else []


def _is_wave(spec: InputSpec) -> bool:
    one_channel = len(spec.shape) == 2 or (len(spec.shape) == 3 and spec.shape[1] == 1)
    return one_channel and not isinstance(spec.shape[-1], int) and spec.dtype.kind == "f"


def _is_attention_mask(spec: InputSpec) -> bool:
    return spec.name == "attention_mask" and len(spec.shape) > 1


def _attended(specs: Sequence[InputSpec], shapes: Mapping[str, Shape], default: int) -> int:
    """Return the length of the past and the tokens together."""
    ids = [shapes[spec.name] for spec in specs if spec.name in ("input_ids", "inputs_embeds")]
    return _past_length(specs, shapes) + ids[0][1] if ids and len(ids[0]) > 1 else default


def _past_length(specs: Sequence[InputSpec], shapes: Mapping[str, Shape]) -> int:
    for spec in specs:
        axes = [axis for axis, dim in enumerate(spec.shape) if axis and not isinstance(dim, int)]
        if is_past(spec.name) and axes:
            return shapes[spec.name][axes[0]]
    return 0


def plausible_shapes(specs: Sequence[InputSpec], given: Shapes | None = None) -> Iterator[dict[str, Shape]]:
    """Yield shapes to try, each once: an empty past and 1 elsewhere, 1 everywhere, larger sizes, then waves.

    Args:
        specs: the inputs of a model.
        given: shapes by input name, which stay.

    """
    seen = []
    tries: list[dict[str, Any]] = [{}, {"empty": False}]
    tries += [{"image": image, "length": length} for image in _IMAGE_SIZES for length in _LENGTHS]
    tries += [{"wave": wave} for wave in _WAVES]
    for sizes in tries:
        shapes = made_shapes(specs, given, **sizes)
        if shapes not in seen:
            seen.append(shapes)
            yield shapes


def made_inputs(specs: Sequence[InputSpec], shapes: Shapes, seed: int | None = 0) -> dict[str, Array]:
    """Return inputs of the given shapes; see the table of this module.

    Args:
        specs: of the model's inputs.
        shapes: by input.
        seed: of the values; None for zeros, and empty strings, where the table has random ones.

    Raises:
        OptionError: an input has no shape, or a dtype that random values do not suit.

    """
    generator = None if seed is None else np.random.default_rng(seed)
    made: dict[str, Array] = {}
    for spec in specs:
        if spec.name not in shapes:
            raise OptionError(f"a shape for input '{spec.name}' expected, found none; give it with --input-shapes")
        shape = tuple(shapes[spec.name])
        # Drawn even where the value is known: what other inputs get must not depend on the table.
        plain = _zeros(shape, spec.dtype) if generator is None else _drawn(spec, shape, generator)
        known = known_value(spec, shape)
        if known is None and counts_lengths(spec):
            known = np.full(shape, counted_length(spec, specs, shapes))
        made[spec.name] = plain if known is None else known.astype(spec.dtype)
    return made


def _zeros(shape: Shape, dtype: np.dtype[Any]) -> Array:
    return np.full(shape, "", dtype) if dtype.kind == "O" else np.zeros(shape, dtype)


def _drawn(spec: InputSpec, shape: Shape, generator: np.random.Generator) -> Array:
    if spec.dtype.kind in "biu":
        return generator.integers(0, 2, shape).astype(spec.dtype)
    if _is_float(spec.dtype):
        return np.asarray(generator.standard_normal(shape)).astype(spec.dtype)
    raise OptionError(f"input '{spec.name}' expected to hold numbers, found {spec.dtype}; give real inputs instead")


def known_value(spec: InputSpec, shape: Shape) -> Array | None:
    """Return the value of an input that its name and type alone tell; None for any other.

    Args:
        spec: of the input.
        shape: its sizes.

    >>> known_value(InputSpec("position_ids", ("b", "t"), np.dtype(np.int64)), (2, 3)).tolist()
    [[0, 1, 2], [0, 1, 2]]

    """
    name = spec.name.lower()
    if name in ("use_cache_branch", "token_type_ids"):
        return np.zeros(shape)
    if name == "attention_mask" or (spec.dtype.kind in "biu" and _MASK.search(name)):
        return np.ones(shape)
    if name in ("position_ids", "cache_position") and shape:
        return np.broadcast_to(np.arange(shape[-1]), shape)
    if _is_float(spec.dtype) and (spec.shape in ((), (1,)) or (len(spec.shape) == 1 and _FACTOR.search(name))):
        return np.ones(shape)
    return None


def counts_lengths(spec: InputSpec) -> bool:
    """Whether an input's name and type say that it counts the length of another."""
    return spec.dtype.kind in "iu" and len(spec.shape) <= 1 and _LENGTH.search(_snake(spec)) is not None


def _snake(spec: InputSpec) -> str:
    return spec.name.lower().replace("seqlens", "seq_lens")


def counted_length(spec: InputSpec, specs: Sequence[InputSpec], shapes: Shapes) -> int:
    """Return the length that an input counts: of the input that its name starts with, else of the first sequence.

    Args:
        spec: of the input.
        specs: of all inputs.
        shapes: of the inputs as far as they are known, by name.

    """
    name = spec.name.lower()
    sized = {other.name: tuple(shapes[other.name]) for other in specs if other.name in shapes}
    past = _past_length(specs, sized)
    if "past" in name:
        return past
    others = [other for other in specs if len(other.shape) > 1 and other.name in sized and not is_past(other.name)]
    if not others:
        return 1
    counted = next((other for other in others if name.startswith(other.name.lower())), others[0])
    axes = [axis for axis, dim in enumerate(counted.shape) if axis and not isinstance(dim, int)]
    length = sized[counted.name][axes[-1] if axes else 1]
    if name.startswith("seqlens_k"):
        return past + length - 1
    return past + length if "total" in name else length


def _is_float(dtype: np.dtype[Any]) -> bool:
    return dtype.kind == "f" or dtype.name.startswith(("bfloat", "float"))
