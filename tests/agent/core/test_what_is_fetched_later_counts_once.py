"""Batches and answers that are fetched: read however they are cut, whole or not at all, under one identity."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.fetched import LINE_BYTES_MAX, Answers, FetchedAnswer, FetchedBatch, place_of
from protocol.local_messages import Call

CALL = Call("acme", "chat")
RESULTS = "/v1/messages/batches/b1/results"


def line(number: int, model: str = "claude-a") -> bytes:
    message = {"type": "message", "model": model, "stop_reason": "end_turn", "content": [],
               "usage": {"input_tokens": 10, "output_tokens": number}}  # fmt: skip
    return json.dumps({"custom_id": str(number), "result": {"type": "succeeded", "message": message}}).encode() + b"\n"


def come(body: bytes, path: str, cuts: tuple[int, ...] = (), *, whole: bool = True, status: int | None = 200):
    place = place_of("GET", path)
    batch = FetchedBatch("p", path, place, CALL)
    edges = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    for start, end in itertools.pairwise(edges):
        batch.feed(body[start:end], lambda _: None)
    return list(batch.endings(status, whole=whole, sent=True))


@given(cuts=st.lists(st.integers(min_value=0), max_size=6).map(tuple))
def test_results_come_to_the_same_wherever_they_are_cut(cuts: tuple[int, ...]) -> None:
    lines = b"".join([line(1), line(2, "claude-b"), b"\n", line(3), b'{"custom_id":"x","result":{"type":"errored"}}'])
    found = {one.call.model: (one.event, one.amounts, one.tokens) for one in come(lines, RESULTS, cuts)}
    assert found["claude-a"][1:] == ({"requests": 2}, {"input": 20, "output": 4})
    assert found["claude-b"][1:] == ({"requests": 1}, {"input": 10, "output": 2})
    assert found["claude-a"][0] != found["claude-b"][0]


def test_a_batch_has_one_identity_wherever_it_is_fetched() -> None:
    assert [one.event for one in come(line(1), RESULTS)] == [one.event for one in come(line(7), RESULTS)]
    assert len(come(line(1), "/v1/messages/batches/" + "x" * 300 + "/results")[0].event) < 128


@pytest.mark.parametrize(("whole", "status"), [(False, 200), (True, 404), (True, None)])
def test_results_that_did_not_all_come_say_nothing(whole: bool, status: int | None) -> None:
    assert come(line(1) + line(2), RESULTS, whole=whole, status=status) == []


def test_a_line_that_is_too_long_costs_its_own_count_alone() -> None:
    long = line(1)[:-2] + b', "x": "' + b"y" * LINE_BYTES_MAX + b'"}\n'
    (found,) = come(long + line(5), RESULTS, cuts=(LINE_BYTES_MAX - 5, LINE_BYTES_MAX + 50))
    assert found.tokens == {"input": 10, "output": 5}


def test_geminis_inlined_answers_are_added_up() -> None:
    answer = {"modelVersion": "gemini-x", "candidates": [{"finishReason": "STOP"}],
              "usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 2, "totalTokenCount": 7}}  # fmt: skip
    inlined = {"inlinedResponses": {"inlinedResponses": [{"response": answer}, {"response": answer}, {"error": {}}]}}
    body = json.dumps({"name": "batches/b1", "metadata": {"state": "BATCH_STATE_SUCCEEDED"}, "response": inlined})
    (found,) = come(body.encode(), "/v1beta/batches/b1")
    assert (found.call.model, found.tokens) == ("gemini-x", {"input": 10, "output": 4})
    assert found.amounts == {"requests": 2}


@given(body=st.binary(max_size=300))
def test_nonsense_says_nothing_and_raises_nothing(body: bytes) -> None:
    come(body, "/v1/batches/b1")
    come(body, RESULTS)


@pytest.mark.parametrize(
    ("method", "path", "later"),
    [
        ("GET", "/v1/batches/b1", True),
        ("GET", "/v1/responses/r1?stream=true", True),
        ("GET", "/v1/chat/completions/c1", True),
        ("GET", "/v1/messages/batches/b1/results", True),
        ("POST", "/v1/responses/r1/cancel", False),
        ("GET", "/v1/batches", False),
        ("GET", "/v1/responses/r1/input_items", False),
        ("GET", "/v1/models/m", False),
    ],
)
def test_what_may_tell_usage_later(method: str, path: str, later: bool) -> None:
    assert (place_of(method, path) is not None) is later


def test_answers_are_remembered_by_provider_and_the_oldest_forgotten() -> None:
    answers = Answers(answers_max=2)
    for number in range(3):
        answers.remember("openai", f"r{number}", f"proxy-{number}", CALL)
    answers.remember("openai", None, "proxy-9", CALL)
    assert answers.find("openai", "r0") is None
    assert answers.find("openai", "r2") == ("proxy-2", CALL)
    assert answers.find("azure", "r2") is None


def test_an_answer_that_still_runs_says_nothing_yet() -> None:
    fetched = FetchedAnswer("openai", "/v1/responses/r1", "proxy-1", CALL)
    fetched.answered({"content-type": "application/json"})
    fetched.feed(b'{"id": "r1", "object": "response", "status": "in_progress", "usage": null}', lambda _: None)
    assert list(fetched.endings(200, whole=True, sent=True)) == []
