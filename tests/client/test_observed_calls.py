"""What a metered SDK tells its agent of a call, and what it shows of the answer: rules without sockets."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import allotment
from allotment.answers import Decision, Recorded, Reservation, Taken
from allotment.attribution import attribution
from allotment.errors import AgentUnavailable, ReservationNotFound
from allotment.observed import KEPT_BYTES_MAX, PIECE_BYTES, ObservedCall, Sent
from allotment.requests import Call
from allotment.server_events import EVENT_BYTES_MAX, ServerEvents, last_words, with_usage_asked

USAGE = b'data: {"id":"x","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":7}}\n\n'
WORD = b'data: {"id":"x","choices":[{"delta":{"content":"hi"}}],"usage":null}\n\n'
DONE = b"data: [DONE]\n\n"
ALLOWED = Decision("allow", True, "ok", "", "chat", reservation=Reservation("r", 1, {}))
BLOCKED = Decision("block", False, "usage_limit_reached", "It gets no more.", "chat")


class Agent:
    """Answers from a script of answers and errors, by operation; notes what it was asked."""

    def __init__(self, **scripts: list[Any]) -> None:
        self.scripts = scripts
        self.asked: list[dict[str, Any]] = []

    def hold(self, talk: Any) -> Any:
        try:
            wanted = next(talk)
            while True:
                fields = wanted.request.fields
                self.asked.append(fields)
                script = self.scripts.get(fields["op"])
                usual = {"begin": ALLOWED, "feed": Taken(1_000), "end": Recorded()}[fields["op"]]
                answer = script.pop(0) if script else usual
                if fields["op"] == "begin" and wanted.kind is Taken:
                    answer = Taken()
                wanted = talk.throw(answer) if isinstance(answer, Exception) else talk.send(answer)
        except StopIteration as done:
            return done.value

    @property
    def ops(self) -> list[str]:
        return [fields["op"] for fields in self.asked]


def call(body: bytes = b"{}", *, kind: str = "text/event-stream", hides: bool = False) -> ObservedCall:
    sent = Sent("openai", "openai", "/v1/chat/completions", "application/json", body, len(body), False, hides, False)
    one = ObservedCall(Call("acme", "chat"), sent)
    one.answered(200, {"content-type": kind, "x-request-id": "r", "content-encoding": "identity"})
    return one


def gone() -> Exception:
    return ReservationNotFound("begin it again", "reservation_not_found")


def test_a_long_request_is_told_in_pieces_in_order():
    agent, body = Agent(), bytes(range(256)) * 2_000
    assert agent.hold(call(body).begin()) is ALLOWED
    assert b"".join(fields["body"] for fields in agent.asked) == body
    assert [fields.get("offset", 0) for fields in agent.asked] == list(range(0, len(body), PIECE_BYTES))
    assert {fields["size"] for fields in agent.asked} == {len(body)}


def test_a_stream_is_fed_when_the_agent_wants_to_see_more_and_ends_with_the_rest():
    agent, one = Agent(feed=[Taken(2_000), Taken(64_000)]), call()
    for _ in range(60):
        assert agent.hold(one.feed(WORD)) == (WORD, False)
    agent.hold(one.end(whole=True))
    agent.hold(one.end(whole=False))
    assert agent.ops == ["feed", "feed", "end"]
    assert b"".join(fields["body"] for fields in agent.asked) == WORD * 60
    assert agent.asked[0]["headers"] == {"content-encoding": "identity"}
    sizes = [len(fields["body"]) for fields in agent.asked]
    assert [fields.get("offset", 0) for fields in agent.asked] == [0, sizes[0], sizes[0] + sizes[1]]


def test_an_agent_that_was_started_anew_hears_all_again():
    agent, one = Agent(), call()
    for _ in range(30):
        agent.hold(one.feed(WORD))
    anew = Agent(feed=[gone()], end=[gone()])
    for _ in range(30):
        anew.hold(one.feed(WORD))
    anew.hold(one.end(whole=True))
    begun = [at for at, op in enumerate(anew.ops) if op == "begin"]
    assert len(begun) == 2
    assert all(anew.asked[at]["sent"] for at in begun)
    heard = b""
    for fields in anew.asked[begun[-1] + 1 :]:
        offset = fields.get("offset", 0)
        assert offset <= len(heard)
        heard = heard[:offset] + fields.get("body", b"")
    assert heard == WORD * 60


def test_of_a_very_long_answer_the_agent_hears_the_rest():
    agent, one = Agent(feed=[]), call()
    agent.hold(one.feed(WORD * (KEPT_BYTES_MAX // len(WORD) + 2)))
    anew = Agent(end=[gone()])
    anew.hold(one.end(whole=True))
    assert anew.ops == ["end", "begin", "end"]
    assert anew.asked[-1]["offset"] > KEPT_BYTES_MAX


def test_a_stream_that_is_cut_or_without_its_agent_ends_between_events():
    for answer, code in ((Taken(0, BLOCKED), "usage_limit_reached"), (AgentUnavailable("gone"), "agent_unavailable")):
        one = call()
        shown, over = Agent().hold(one.feed(WORD + WORD[:20]))
        assert (shown, over) == (WORD, False)
        shown, over = Agent(feed=[answer]).hold(one.feed(WORD[20:] + WORD * 20))
        assert over
        assert json.loads(shown.removeprefix(b"data: "))["error"]["code"] == code


def test_a_whole_answer_comes_through_without_its_agent():
    one = call(kind="application/json")
    assert Agent(feed=[AgentUnavailable("gone")]).hold(one.feed(b"x" * 70_000)) == (b"x" * 70_000, False)
    agent = Agent()
    agent.hold(one.end(whole=True))
    assert [fields["body"] for fields in agent.asked] == [b"x" * 70_000]


def test_a_stream_in_which_nothing_can_be_said_is_refused_by_an_exception():
    one = call(kind="application/vnd.amazon.eventstream")
    with pytest.raises(allotment.Refused):
        Agent(feed=[Taken(0, BLOCKED)]).hold(one.feed(b"\0" * 1_000))


def test_an_end_that_nobody_hears_is_logged_and_said_once(caplog):
    one = call()
    Agent(end=[AgentUnavailable("gone")]).hold(one.end(whole=True))
    assert one.reservation in caplog.text
    unsent = call()
    Agent(end=[gone()]).hold(unsent.end(whole=False, sent=False))
    assert unsent.reservation not in caplog.text


@given(st.lists(st.sampled_from([WORD, USAGE, DONE, b": ping\r\n\r\n", b"data: x\r\r"]), max_size=8), st.data())
def test_the_usage_chunk_alone_is_taken_out_however_the_stream_is_cut(events, data):
    stream = b"".join(events)
    hider, shown, at = ServerEvents(hides_usage=True), b"", 0
    while at < len(stream):
        step = data.draw(st.integers(1, 90))
        shown += hider.feed(stream[at : at + step])
        at += step
    shown += hider.close()
    assert shown == stream.replace(USAGE, b"")


def test_whole_events_leave_at_once_and_long_ones_are_not_kept():
    events = ServerEvents(hides_usage=False)
    assert events.feed(USAGE + WORD[:10]) == USAGE
    assert events.cut(b"!") == b"!"
    long = b"data: " + b"y" * (2 * EVENT_BYTES_MAX)
    assert len(events.feed(long)) >= len(long) - 3
    assert events.cut(b"data: !\n\n").startswith(b"\n\n")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(st.text(max_size=6), values, max_size=4),
    st.sampled_from([None, {}, {"include_usage": False}, {"other": 1}, {"include_usage": True}]),
)
def test_a_chat_stream_is_asked_for_its_usage_and_stays_as_it_is(fields, options):
    fields = {**fields, "stream": True} | ({"stream_options": options} if options is not None else {})
    body = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode(errors="surrogatepass")
    asked = with_usage_asked(body)
    if options == {"include_usage": True}:
        assert asked is None
    elif asked is not None:
        after = json.loads(asked)
        assert after.pop("stream_options")["include_usage"] is True
        assert after == {name: value for name, value in fields.items() if name != "stream_options"}
    assert with_usage_asked(json.dumps(fields | {"stream": False}).encode()) is None


@given(st.binary(max_size=40))
def test_what_is_no_request_of_a_stream_is_left_alone(body):
    assert with_usage_asked(body) is None
    assert with_usage_asked(b'{"stream":' + body) is None or b"true" in body


def test_last_words_are_what_each_sdk_reads_as_an_error():
    said = {family: last_words(family, 402, "c", "m") for family in ("openai", "anthropic", "gemini")}
    assert json.loads(said["openai"][6:])["error"]["code"] == "c"
    assert said["anthropic"].startswith(b"event: error\ndata: ")
    assert json.loads(said["gemini"][6:])["error"] == {"code": 402, "message": "m", "status": "c"}


def test_blocks_of_attribution_nest_and_end():
    with allotment.attributed(customer="a", user="u", tags={"t": "1", "s": "1"}):
        with allotment.attributed(user="v", tags={"t": "2"}):
            here = attribution()
        assert attribution().user == "u"
    assert (here.customer, here.user, here.tags) == ("a", "v", {"t": "2", "s": "1"})
    assert attribution().customer is None


def test_what_cannot_be_metered_is_said():
    with pytest.raises(TypeError, match="is a object; expected a client of openai"):
        allotment.meter(object())
    with pytest.raises(ValueError, match="estimate: is 'most'"):
        allotment.meter(object(), estimate="most")
