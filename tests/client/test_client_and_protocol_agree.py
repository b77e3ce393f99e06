"""Whatever the client says, protocol understands the same; whatever protocol answers, the client reads the same."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

import allotment
from allotment import attempts, requests
from allotment.wire import FrameReader, RequestEncoder
from protocol.admission import Estimate, Priority
from protocol.codec import MsgpackDecoder, encode_msgpack
from protocol.decisions import Code, Decision, LimitState, Reservation, Verdict
from protocol.events import Outcome, Subject, UsageSource
from protocol.framing import HEAD_BYTES, frame
from protocol.instants import INSTANT_MS_MAX
from protocol.local_messages import (
    Begin,
    Call,
    Check,
    End,
    Extend,
    Feed,
    Record,
    Recorded,
    Release,
    Request,
    Reserve,
    Settle,
    Status,
    StatusReport,
    Taken,
    Usage,
    UsageReport,
)
from protocol.units import QUANTITY_MAX, TOKEN_CLASSES

decode = MsgpackDecoder(Request)
encode = RequestEncoder()

keys = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:@+~-]{0,20}", fullmatch=True)
models = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:@+~/-]{0,20}", fullmatch=True)
quantities = st.integers(0, QUANTITY_MAX)
ids = st.integers(1, QUANTITY_MAX)
amounts = st.dictionaries(keys, quantities, max_size=5)
tokens = st.dictionaries(st.sampled_from(sorted(TOKEN_CLASSES)), quantities, max_size=5)


def some(**choices: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Keyword arguments, each of which may be left out."""
    return st.fixed_dictionaries({}, optional=choices)


who = some(
    user=keys, workspace=keys, role=keys, api_key=keys, tags=st.dictionaries(keys, keys, max_size=4), model=models
)
waiting = some(
    amounts=amounts,
    deadline_ms=st.integers(0, 60_000),
    breakdown=st.booleans(),
    priority=st.sampled_from(Priority).map(str),
)
estimates = some(
    estimates=st.dictionaries(st.sampled_from(Estimate).map(str), amounts.filter(bool), min_size=1),
)
used = some(
    amounts=amounts,
    tokens=tokens,
    usage_source=st.sampled_from(UsageSource).map(str),
    outcome=st.sampled_from(Outcome).map(str),
    provider=keys,
)
ttls = st.integers(1_000, 86_400_000)


def understood(request: requests.Request, request_id: int) -> Any:
    request.fields["id"] = request_id
    return decode(encode(request.fields)[HEAD_BYTES:])


def call_of(customer: str, feature: str, options: dict[str, Any]) -> Call:
    subject = Subject(**{name: options.get(name) for name in Subject.__struct_fields__})
    return Call(customer, feature, subject, options.get("tags", {}), options.get("model"))


def enums(options: dict[str, Any]) -> dict[str, Any]:
    kinds = {"usage_source": UsageSource, "outcome": Outcome, "priority": Priority, "estimate": Estimate}
    return {name: kinds[name](value) if name in kinds else value for name, value in options.items()}


@given(ids, keys, keys, who, waiting)
def test_a_check_is_understood_as_it_was_meant(request_id, customer, feature, subject, options):
    meant = Check(id=request_id, call=call_of(customer, feature, subject), **enums(options))
    assert understood(requests.check(customer, feature, **subject, **options), request_id) == meant


@given(ids, keys, keys, who, waiting, keys, some(ttl_ms=ttls), estimates)
def test_a_reserve_is_understood_as_it_was_meant(request_id, customer, feature, subject, options, name, ttl, others):
    call = call_of(customer, feature, subject)
    meant = Reserve(id=request_id, reservation=name, call=call, **enums(options), **ttl, **others)
    wanted = requests.split_reserve(customer, feature, {**subject, **options, **ttl, **others, "reservation": name})
    assert understood(requests.reserve(*wanted), request_id) == meant


@given(ids, keys, amounts, ttls, st.integers(0, 60_000))
def test_an_extend_is_understood_as_it_was_meant(request_id, name, total, ttl_ms, deadline_ms):
    meant = Extend(id=request_id, reservation=name, amounts=total, ttl_ms=ttl_ms, deadline_ms=deadline_ms)
    assert understood(requests.extend(name, total, ttl_ms, deadline_ms), request_id) == meant


@given(ids, keys, used, some(model=models), st.none() | st.tuples(keys, keys, who))
def test_a_settle_is_understood_as_it_was_meant(request_id, name, said, model, call):
    meant = Settle(id=request_id, reservation=name, **enums(said), **model, call=call and call_of(*call))
    said_call = call and allotment.Call(call[0], call[1], **call[2])
    assert understood(requests.settle(name, **said, **model, call=said_call), request_id) == meant


@given(ids, keys, keys, who, used, keys, some(at_ms=st.integers(0, INSTANT_MS_MAX)))
def test_a_record_is_understood_as_it_was_meant(request_id, customer, feature, subject, said, event, at):
    meant = Record(id=request_id, event=event, call=call_of(customer, feature, subject), **enums(said), **at)
    assert understood(requests.record(customer, feature, event=event, **subject, **said, **at), request_id) == meant


sent_to = some(
    content_type=st.text(max_size=20),
    size=quantities,
    estimate=st.sampled_from(Estimate).map(str),
    sent=st.booleans(),
    method=st.text(max_size=16),
)
answers = some(
    body=st.binary(max_size=30),
    offset=quantities,
    headers=st.dictionaries(st.text(max_size=9), st.text(max_size=9), max_size=3),
)


@given(ids, keys, keys, keys, who, keys, st.text(max_size=20), sent_to, st.binary(max_size=30), quantities)
def test_a_begin_is_understood_as_it_was_meant(
    request_id, name, customer, feature, subject, provider, path, about, piece, offset
):
    about = {"provider": provider, "path": path, **about}
    call = call_of(customer, feature, subject)
    meant = Begin(id=request_id, reservation=name, call=call, **enums(about), body=piece, offset=offset)
    said = requests.begin(allotment.Call(customer, feature, **subject), name, about, piece, offset)
    assert understood(said, request_id) == meant


@given(ids, keys, answers, st.none() | st.integers(100, 999), st.booleans(), st.booleans())
def test_a_feed_and_an_end_are_understood_as_they_were_meant(request_id, name, answer, status, whole, sent):
    assert understood(requests.feed(name, answer), request_id) == Feed(id=request_id, reservation=name, **answer)
    meant = End(id=request_id, reservation=name, **answer, status=status, whole=whole, sent=sent)
    assert understood(requests.end(name, status, answer, whole=whole, sent=sent), request_id) == meant


whose = some(
    feature=keys, user=keys, workspace=keys, role=keys, api_key=keys, tags=st.dictionaries(keys, keys, max_size=4),
    deadline_ms=st.integers(0, 60_000),
)  # fmt: skip


@given(ids, keys, whose)
def test_the_others_are_understood_as_they_were_meant(request_id, name, options):
    assert understood(requests.release(name), request_id) == Release(id=request_id, reservation=name)
    assert understood(requests.status(), request_id) == Status(id=request_id)
    meant = Usage(id=request_id, customer=name, **options)
    assert understood(requests.usage(name, **options), request_id) == meant


maybe_quantity = st.none() | quantities
texts = st.text(max_size=30)
limit_states = st.builds(
    LimitState, limit=keys, meter=keys, window=keys, granted=st.booleans(), amount=maybe_quantity, usage=quantities,
    remaining=maybe_quantity, scope=keys, scope_value=texts, resets_at=st.none() | texts, resets_in_ms=maybe_quantity,
)  # fmt: skip
breakdowns = st.lists(limit_states, max_size=3).map(tuple)
values = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts
decided = st.builds(
    Decision, id=ids, decision=st.sampled_from(Verdict), has_access=st.booleans(), code=st.sampled_from(Code),
    message=texts, feature=keys, limiting=st.none() | keys, amount=maybe_quantity, usage=maybe_quantity,
    remaining=maybe_quantity, resets_at=st.none() | texts, resets_in_ms=maybe_quantity, retry_after_ms=maybe_quantity,
    reservation=st.none() | st.builds(Reservation, id=keys, expires_in_ms=quantities, amounts=amounts),
    max_output_tokens=maybe_quantity, plan=texts, policy_version=quantities, staleness_ms=quantities,
    is_fallback=st.booleans(), breakdown=breakdowns,
)  # fmt: skip
taken = st.builds(Taken, id=ids, bytes=quantities, cut=st.none() | decided)
recorded = st.builds(
    Recorded, id=ids, event=st.none() | keys, duplicate=st.booleans(), corrects=st.none() | keys,
    amounts=st.dictionaries(keys, st.integers(-QUANTITY_MAX, QUANTITY_MAX), max_size=4),
)  # fmt: skip
usage_reports = st.builds(
    UsageReport, id=ids, customer=keys, plan=texts, status=keys, policy_version=quantities, staleness_ms=quantities,
    features=st.dictionaries(keys, values, max_size=4), limits=breakdowns,
)  # fmt: skip
status_reports = st.builds(
    StatusReport, id=ids, agent=keys, version=texts, journal=keys, boot=quantities, state=keys, uptime_ms=quantities,
    control_plane=st.dictionaries(keys, values, max_size=4), customers=quantities, leases=quantities,
    reservations=quantities, outbox_events=quantities, oldest_unsent_ms=quantities, connections=quantities,
    counters=st.dictionaries(keys, quantities, max_size=4),
)  # fmt: skip
KINDS = {
    Decision: allotment.Decision,
    Recorded: allotment.Recorded,
    Taken: allotment.Taken,
    UsageReport: allotment.UsageReport,
    StatusReport: allotment.StatusReport,
}


@given(decided | recorded | taken | usage_reports | status_reports)
def test_an_answer_is_read_as_it_was_meant(meant):
    (reply,) = FrameReader().feed(frame(encode_msgpack(meant)))
    answer = attempts.outcome(reply, KINDS[type(meant)])
    expected = {name: value for name, value in everything(meant).items() if name != "id"}
    if expected.get("cut"):
        del expected["cut"]["id"]  # which is of no request
    assert asdict(answer) == expected
    assert reply["id"] == meant.id


def everything(struct: msgspec.Struct) -> dict[str, Any]:
    """A struct as a map with its defaults, tuples kept."""
    return {name: _plain(getattr(struct, name)) for name in struct.__struct_fields__}


def _plain(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        return everything(value)
    if isinstance(value, tuple):
        return tuple(map(_plain, value))
    return str(value) if isinstance(value, Verdict | Code) else value


@given(st.binary(max_size=200), st.lists(st.integers(1, 50), max_size=10))
def test_noise_from_the_agent_is_an_answer_or_one_error_and_nothing_else(noise, sizes):
    reader, at = FrameReader(), 0
    try:
        for size in [*sizes, 200]:
            for reply in reader.feed(noise[at : at + size]):
                attempts.outcome(reply, allotment.Decision)
            at += size
    except (OSError, allotment.AgentError, attempts.TryAgain):
        return


_KINDS = st.sampled_from(["decision", "recorded", "usage", "status", "error", "tomorrow"])
_noise = st.recursive(
    values, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2), max_leaves=5
)


@given(_KINDS, st.dictionaries(st.sampled_from(["error", "retry", "breakdown", "reservation", "limits"]), _noise))
def test_malformed_replies_are_one_error_and_nothing_else(kind, fields):
    reply = {"kind": kind, "decision": "allow", "has_access": True, "code": "", "message": "", "feature": ""} | fields
    try:
        attempts.outcome(reply, allotment.Decision)
    except (OSError, allotment.AgentError, attempts.TryAgain):
        return
    assert kind == "decision"
