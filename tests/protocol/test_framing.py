"""Frames: however the bytes are cut, the same frames come out; what is held is bounded."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allotment import wire
from protocol import framing
from protocol.framing import FRAME_BYTES_MAX, HEAD_BYTES, FrameReader, frame
from protocol.violations import Violation

bodies = st.lists(st.binary(min_size=1, max_size=200), max_size=8)


def cut(data: bytes, at: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(place, len(data)) for place in at), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


@given(bodies, st.lists(st.integers(0, 2_000), max_size=30))
def test_any_chunking_gives_the_same_frames_as_the_whole(sent, places):
    reader, got = FrameReader(), []
    for chunk in cut(b"".join(map(frame, sent)), places):
        got += reader.feed(chunk)
    assert got == sent
    assert reader.held_bytes == 0


@given(bodies, st.binary(min_size=1, max_size=50), st.integers(1, 53))
def test_what_is_held_is_exactly_the_unfinished_frame(sent, last, keep):
    unfinished = frame(last)[: min(keep, len(last) + HEAD_BYTES - 1)]
    reader = FrameReader()
    assert reader.feed(b"".join(map(frame, sent)) + unfinished) == sent
    assert reader.held_bytes == len(unfinished)


@given(st.binary(max_size=4_000), st.lists(st.integers(0, 4_000), max_size=60))
def test_whatever_arrives_no_more_than_one_frame_is_held(noise, places):
    reader = FrameReader(frame_bytes_max=64)
    for chunk in cut(noise, places):
        try:
            got = reader.feed(chunk)
        except Violation as wrong:
            assert wrong.code == "frame_invalid"  # noqa: PT017 - noise may also be frames
            return
        assert all(0 < len(body) <= 64 for body in got)
        assert reader.held_bytes < 64 + HEAD_BYTES


@pytest.mark.parametrize("length", [0, FRAME_BYTES_MAX + 1, 2**31, 2**32 - 1])
def test_a_length_out_of_bounds_is_refused_at_its_head(length):
    with pytest.raises(Violation) as raised:
        FrameReader().feed(length.to_bytes(4, "big"))
    wrong = raised.value
    assert (wrong.field, wrong.code) == ("frame", "frame_invalid")
    assert str(length) in wrong.message
    assert str(FRAME_BYTES_MAX) in wrong.expected


def test_a_frame_of_the_largest_size_passes():
    body = b"x" * FRAME_BYTES_MAX
    assert FrameReader().feed(frame(body)) == [body]


def test_the_client_has_the_same_bounds():
    assert (wire.FRAME_BYTES_MAX, wire.HEAD_BYTES) == (framing.FRAME_BYTES_MAX, framing.HEAD_BYTES)
