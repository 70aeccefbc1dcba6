"""Damage: of bytes, of the fields of a protobuf message as they lie in the file, of messages, and of JSON.

Every function takes a random number generator and gives the same damage for the same numbers.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import onnx

NUMBERS = (0, 1, 2, 3, 7, 255, 65535, 2**31 - 1, 2**31, 2**32, 2**53, 2**62, 2**63 - 1, 2**64 - 1)
FLOATS = (0.0, -1.0, 1e-45, 1e38, -1e38, float("inf"), float("nan"))
TEXTS = (
    "", "\0", "\x1b[31m\n", "\u202e", "[/]", "%s{0}", "../../etc/passwd", "/dev/zero", "a" * 5000, "N", "x", "y",
    "Conv", "If", "Loop", "Scan", "Constant", "Reshape", "com.microsoft", "ai.onnx.ml", "location",
    "then_branch", "body",
)  # fmt: skip
Mutator = Callable[[random.Random, bytes], bytes]


@dataclass(frozen=True)
class Field:
    """A field of a message as it lies in the file: its number, its wire type and its value, a number or bytes."""

    number: int
    wire: int
    value: int | bytes


def damaged_bytes(rng: random.Random, data: bytes) -> bytes:
    """Return bytes of which a few were changed, cut out, doubled, swapped or made up."""
    out = bytearray(data)
    if not out:
        return rng.randbytes(8)
    start = rng.randrange(len(out))
    size = min(rng.choice((1, 1, 2, 4, 8, 64, 1024)), len(out) - start)
    kind = rng.randrange(6)
    if kind == 0:
        out[start] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del out[start:]
    elif kind == 2:
        del out[start : start + size]
    elif kind == 3:
        out[start:start] = out[start : start + size] * rng.choice((1, 2, 100))
    elif kind == 4:
        out[start : start + size] = rng.randbytes(size)
    else:
        out[start : start + size] = rng.choice((b"\xff", b"\0", b"\x7f")) * size
    return bytes(out)


def fields_of(data: bytes) -> list[Field]:
    """Return the fields of a message; ValueError where the bytes are none."""
    fields, at = [], 0
    while at < len(data):
        key, at = _number(data, at)
        wire, value = key & 7, b""
        if wire == 0:
            number, at = _number(data, at)
            fields.append(Field(key >> 3, wire, number))
            continue
        if wire == 2:
            size, at = _number(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")
        value, at = data[at : at + size], at + size
        if len(value) < size or not key >> 3:
            raise ValueError("cut off")
        fields.append(Field(key >> 3, wire, value))
    return fields


def _number(data: bytes, at: int) -> tuple[int, int]:
    number, shift = 0, 0
    while at < len(data) and shift < 70:
        byte = data[at]
        number, shift, at = number | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return number, at
    raise ValueError("no number")


def bytes_of(fields: Sequence[Field]) -> bytes:
    """Return a message of fields: the inverse of `fields_of`."""
    out = bytearray()
    for field in fields:
        out += _written(field.number << 3 | field.wire)
        if isinstance(field.value, int):
            out += _written(field.value)
        else:
            out += (_written(len(field.value)) if field.wire == 2 else b"") + field.value
    return bytes(out)


def _written(number: int) -> bytes:
    number &= 2**64 - 1
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def damaged_fields(rng: random.Random, data: bytes, depth: int = 0) -> bytes:
    """Return a message in which, at some depth, a field was taken out, doubled, moved, renumbered or changed."""
    try:
        fields = fields_of(data)
    except ValueError:
        return damaged_bytes(rng, data)
    if not fields:
        return data
    place = rng.randrange(len(fields))
    field = fields[place]
    if depth < 8 and field.wire == 2 and rng.random() < 0.8:
        assert isinstance(field.value, bytes)
        fields[place] = Field(field.number, 2, damaged_fields(rng, field.value, depth + 1))
        return bytes_of(fields)
    other = rng.randrange(len(fields))
    kind = rng.randrange(6)
    if kind == 0:
        del fields[place]
    elif kind == 1:
        fields[place:place] = [field] * rng.choice((1, 2, 50))
    elif kind == 2:
        fields[place], fields[other] = fields[other], field
    elif kind == 3:
        fields[place] = Field(rng.randrange(1, 30), field.wire, field.value)
    elif kind == 4 and isinstance(field.value, int):
        fields[place] = Field(field.number, 0, rng.choice(NUMBERS))
    else:
        fields[place] = Field(field.number, 2, rng.choice(TEXTS).encode())
    return bytes_of(fields)


def messages(message: Any) -> Iterator[Any]:
    """Yield a message and all messages in it."""
    yield message
    for descriptor, value in message.ListFields():
        if descriptor.message_type is not None:
            for part in [value] if hasattr(value, "ListFields") else value:
                yield from messages(part)


def damaged_message(rng: random.Random, data: bytes) -> bytes:
    """Return a model in which a field of one message has another value of its type, perhaps one from elsewhere."""
    model = onnx.ModelProto()
    model.ParseFromString(data)
    parts = list(messages(model))
    by_kind: dict[str, list[Any]] = {}
    for part in parts:
        by_kind.setdefault(part.DESCRIPTOR.name, []).append(part)
    # Every kind of message as often as the others: there are many nodes and one model.
    part = rng.choice(by_kind[rng.choice(sorted(by_kind))])
    descriptor = rng.choice(part.DESCRIPTOR.fields)
    if descriptor.message_type is not None:
        _damage_messages(rng, part, descriptor, by_kind.get(descriptor.message_type.name, []))
    else:
        _damage_scalars(rng, part, descriptor, parts)
    return bytes(model.SerializeToString())


def _damage_messages(rng: random.Random, part: Any, descriptor: Any, others: Sequence[Any]) -> None:
    """Take out, double or move messages in a field, or put a copy of another there."""
    values = getattr(part, descriptor.name)
    if hasattr(values, "ListFields"):
        if others and rng.random() < 0.7:
            _copy(rng.choice(others), values)
        else:
            part.ClearField(descriptor.name)
        return
    if others and (not len(values) or rng.random() < 0.3):
        _copy(rng.choice(others), values.add())
    elif len(values):
        place, other = rng.randrange(len(values)), rng.randrange(len(values))
        if rng.random() < 0.4:
            del values[place]
        else:
            _copy(values[other], values[place])


def _copy(source: Any, target: Any) -> None:
    copied = type(source)()
    copied.CopyFrom(source)  # one may be a part of the other
    target.CopyFrom(copied)


def _damage_scalars(rng: random.Random, part: Any, descriptor: Any, parts: Sequence[Any]) -> None:
    """Set a field, or an entry of it, to another value: a strange one, or one of another message."""
    values = getattr(part, descriptor.name)
    if isinstance(values, bool | int | float | str | bytes):
        if rng.random() < 0.15:
            part.ClearField(descriptor.name)
        else:
            setattr(part, descriptor.name, _value(rng, descriptor, parts))
        return
    if len(values) and rng.random() < 0.25:
        del values[rng.randrange(len(values))]
    elif len(values) and rng.random() < 0.6:
        values[rng.randrange(len(values))] = _value(rng, descriptor, parts)
    else:
        values.append(_value(rng, descriptor, parts))


def _value(rng: random.Random, descriptor: Any, parts: Sequence[Any]) -> Any:
    if descriptor.enum_type is not None:
        return rng.choice([value.number for value in descriptor.enum_type.values])
    if descriptor.type == descriptor.TYPE_STRING:
        names = [part.name for part in parts if getattr(part, "name", "")]
        return rng.choice(names) if names and rng.random() < 0.6 else rng.choice(TEXTS)
    if descriptor.type == descriptor.TYPE_BYTES:
        return rng.choice((b"", b"\0", rng.randbytes(rng.choice((1, 4, 8, 64)))))
    if descriptor.type in (descriptor.TYPE_FLOAT, descriptor.TYPE_DOUBLE):
        return rng.choice(FLOATS)
    return _whole(rng, descriptor)


def _whole(rng: random.Random, descriptor: Any) -> int:
    bits = 32 if descriptor.type in (descriptor.TYPE_INT32, descriptor.TYPE_UINT32) else 64
    number = rng.choice(NUMBERS) % 2**bits
    signed = descriptor.type in (descriptor.TYPE_INT32, descriptor.TYPE_INT64)
    return number - 2**bits if signed and number >= 2 ** (bits - 1) else number


def damaged_json(rng: random.Random, data: bytes) -> bytes:
    """Return JSON in which one entry was taken out, doubled or given another value."""
    document = json.loads(data)
    places = list(_places(document))
    holder, key = rng.choice(places)
    kind = rng.randrange(4)
    if kind == 0:
        del holder[key]
    elif kind == 1:
        other, place = rng.choice(places)
        holder[key] = other.get(place) if isinstance(other, dict) else other[place] if place < len(other) else None
    else:
        holder[key] = rng.choice(
            (None, True, -1, 0, 2**70, 1e400, "", "\x1b[31m", [], {}, [[]] * 3, "a" * 5000, float("nan"))
        )
    try:
        return json.dumps(document).encode()
    except ValueError:  # it holds itself
        return b"[" * 100_000


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in list(entries):
        yield value, key
        yield from _places(entry)


def damaged_model(rng: random.Random, data: bytes) -> bytes:
    """Return the bytes of a model with one to three faults of any kind."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        mutator = rng.choice((damaged_bytes, damaged_fields, damaged_fields, *[damaged_message] * 5))
        try:
            data = mutator(rng, data)
        except Exception:  # it could not be parsed any more, or not be written
            data = damaged_bytes(rng, data)
    return data
