"""Bytes as attackers and broken devices send them. ``make fuzz`` takes many more examples than ``make test``."""

import os
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))
"""For a test that takes a hundred in the short form, others in proportion; 0 is the short form, with the same examples
each time."""

NUMBERS = (b"\0", b"\1", b"\x7f", b"\x80", b"\xff", b"\xff\xff", b"\xfe\xff", b"\xff\xff\xff\xff", b"\0\0\0\0")


def fuzzed(short: int) -> Callable[[Any], Any]:
    """Decorator of a hypothesis test with ``short`` examples in ``make test``."""
    return settings(
        max_examples=max(short, short * EXAMPLES // 100),
        derandomize=not EXAMPLES,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


@st.composite
def damaged(draw: st.DrawFn, samples: Sequence[bytes], words: Sequence[bytes] = ()) -> bytes:
    """A sample with a few things done to it: bytes replaced, put in, taken out, doubled, cut. ``words`` are pieces that
    mean something in this format."""
    data = bytearray(draw(st.sampled_from(samples)))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        length = draw(st.integers(0, min(64, len(data) - start)))
        piece = draw(st.sampled_from([*NUMBERS, *words]) | st.binary(max_size=16))
        match draw(st.sampled_from(["replace", "insert", "remove", "double", "cut", "write"])):
            case "replace":
                data[start : start + length] = piece
            case "write":
                data[start : start + len(piece)] = piece
            case "insert":
                data[start:start] = piece
            case "remove":
                del data[start : start + length]
            case "double":
                data[start:start] = data[start : start + length]
            case _:
                del data[start:]
    return bytes(data)


def noise(samples: Sequence[bytes], words: Sequence[bytes] = ()) -> st.SearchStrategy[bytes]:
    """Mostly damaged samples, now and then bytes from nowhere."""
    return damaged(samples, words) | damaged(samples, words) | st.binary(max_size=200)


@st.composite
def pieces(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """The bytes as a connection may cut them."""
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=4)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
