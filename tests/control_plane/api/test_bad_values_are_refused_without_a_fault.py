"""Whatever is sent to whatever route, the answer is never a 500, on either database."""

# ruff: noqa: E501, RUF001 - tables of bad values, look-alikes among them

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
from litestar import Litestar
from litestar.routes import HTTPRoute

IDS = [
    "%00", "a%00b", "%0a", "a%0a", "..%2f..%2fetc%2fpasswd", "'; DROP TABLE customers; --", "x" * 300, "é", "е",
    "a\u202eb", "a\u200bb", "😀", "{{7*7}}", "=cmd()", "<script>", "%ff%fe", "-a", "%20",
]  # fmt: skip
NUMBERS = ["-1", "0", "1001", "1e20", "1e400", "1.5", str(2**31), str(2**53), str(2**63), str(2**64), "9" * 4400, "NaN",
           "inf", "", "%00", "true", "0x10", "１", "null", "[]"]  # fmt: skip
TEXTS = ["%00", "é", "x" * 5000, "0001-01-01", "9999-12-31T23:59:59-23:59", "2026-01-01", "2026-01-01T00:00:00",
         "1969-12-31T23:59:59Z", "2300-01-01T00:00:00Z", "meter,meter", "password", ",", "hour,day,user,model,feature"]  # fmt: skip
CURSORS = ["%00", "AAAA", "WyJcdTAwMDAiXQ", "IlxuIg", "MTAwMDAwMDAwMDAwMDAwMDAwMDAwMA", "LTE", "W10", "WzEsIlx1MDAwMCJd",
           "Wy0xLCIiXQ", "W1tbW1tbW1tb", "bnVsbA", "ImFcdTAwMDBiIg", "=", "é", "x" * 700]  # fmt: skip
VALUES: list[Any] = [
    None, True, -1, 0, 1.5, 2**53, 2**63, 2**64, 10**30, "", "\x00", "a\x00b", "x" * 70_000, "\ud800", "é", [], {}, [[]],
    {"a": 1}, "1", "active", "😀",
]  # fmt: skip
BODIES = [b"", b"null", b"[]", b"1", b'"x"', b"{", b"{}", b"\xff\xfe", b'{"name":NaN}', b"[" * 100_000, b'{"a":' * 50_000,
          b'{"name":1e400}', b'{"limit":' + b"9" * 4_400 + b"}", b" " * 100]  # fmt: skip
JSON = {"Content-Type": "application/json"}

FEATURE = {"name": "Chat", "kind": "metered"}
METER = {"unit": "images", "description": ""}
LIMIT: dict[str, Any] = {"key": "a", "meter": "requests", "amount": 10, "window": "day", "feature": None, "scope": "user",
                         "at_end": "overage", "overage_max": 1, "when_offline": "drain"}  # fmt: skip
PLAN: dict[str, Any] = {
    "name": "Pro",
    "features": [{"feature": "chat", "enabled": True, "value": None}],
    "limits": [LIMIT],
}
SUBSCRIPTION = {"plan": "pro", "version": 1, "status": "active"}
TOKEN = {"role": "join", "name": "x", "uses": 1, "expires_in_hours": 1}
GOOD = [
    ("PUT", "/v1/features/chat", FEATURE),
    ("PUT", "/v1/meters/images", METER),
    ("PUT", "/v1/plans/pro", PLAN),
    ("PUT", "/v1/customers/acme", {"name": "Acme"}),
    ("PUT", "/v1/customers/acme/subscription", SUBSCRIPTION),
    ("POST", "/v1/tokens", TOKEN),
]


@pytest.fixture
def furnished(admin):  # type: ignore[no-untyped-def]
    for method, path, body in GOOD:
        assert admin(method, path, json=body).is_success
    return admin


def variations(body: Any) -> list[Any]:
    """The body with each value replaced by each bad one, each field left out, and a field too many."""
    found: list[Any] = []
    if isinstance(body, dict):
        found.append({**body, "is_admin": True})
        for key, value in body.items():
            found.append({name: kept for name, kept in body.items() if name != key})
            found.extend({**body, key: bad} for bad in [*VALUES, *variations(value)])
    if isinstance(body, list):
        for bad in [*VALUES, *variations(body[0])]:
            found.extend([[bad], [*body, bad]])
    return found


def check(response: Any, sent: object) -> None:
    assert response.status_code < 500, (response.request.method, response.request.url, sent, response.text)
    if not response.is_success:
        assert response.headers["content-type"] == "application/problem+json", sent
        problem = response.json()
        assert problem["status"] == response.status_code
        assert problem["error"]["message"] == problem["detail"]
        assert problem["code"]


def test_bad_ids_in_paths_are_refused(furnished, app: Litestar) -> None:  # type: ignore[no-untyped-def]
    asked = 0
    for route in app.routes:
        assert isinstance(route, HTTPRoute)
        if route.path.startswith("/schema") or not any(
            not isinstance(component, str) for component in route.path_components
        ):
            continue
        for method in sorted(route.methods - {"OPTIONS"}):
            for bad in IDS:
                parts = [
                    component if isinstance(component, str) else quote(bad, safe="%")
                    for component in route.path_components
                ]
                body = {"json": dict(FEATURE)} if method in {"PUT", "POST"} else {}
                response = furnished(method, "/" + "/".join(parts), **body)
                check(response, bad)
                assert response.status_code in {400, 404, 405}, (method, parts, response.text)
                asked += 1
    assert asked > 200


def test_bad_parameters_are_refused(furnished) -> None:  # type: ignore[no-untyped-def]
    lists = ["features", "meters", "plans", "customers", "agents", "tokens", "event-conflicts", "audit-log"]
    lists += ["usage", "customers/acme/usage"]
    lists += [f"customers/acme/{name}" for name in ("balances", "events", "leases")]
    for name in lists:
        for number in NUMBERS:
            response = furnished("GET", f"/v1/{name}?limit={number}")
            check(response, number)
            assert response.status_code == 400, (name, number, response.text)
        for cursor in CURSORS:
            check(furnished("GET", f"/v1/{name}?cursor={cursor}"), cursor)
        assert furnished("GET", f"/v1/{name}?cursor=AAAA").status_code == 400
        assert furnished("GET", f"/v1/{name}?limit=1&limit=2").status_code == 400
        assert furnished("GET", f"/v1/{name}?limti=1").json()["field"] == "limti"
    for key in ("from", "to", "group_by", "window", "offset", "grain", "zone", "grain=day&zone", "model", "feature"):
        for text in [*TEXTS, *NUMBERS]:
            check(furnished("GET", f"/v1/customers/acme/usage?{key}={text}"), text)
            if key not in {"window", "offset"}:
                check(furnished("GET", f"/v1/usage?{key}={text}"), text)
    for text in [*TEXTS, *CURSORS]:
        check(furnished("GET", f"/v1/reconciliation?cursor={text}"), text)
        check(furnished("GET", f"/v1/reconciliation?customer={text}"), text)
    for path, key in (("plans/pro", "version"), ("audit-log", "customer"), ("customers/acme/leases", "status"),
                      ("customers/acme/balances", "user")):  # fmt: skip
        for text in [*NUMBERS, *IDS]:
            check(furnished("GET", f"/v1/{path}?{key}={text}"), text)


def test_bad_bodies_are_refused(furnished) -> None:  # type: ignore[no-untyped-def]
    for method, path, good in GOOD:
        for raw in BODIES:
            response = furnished(method, path, content=raw, headers=JSON)
            check(response, raw[:50])
            assert response.status_code == 400, (path, raw[:50], response.text)
        for body in variations(good):
            try:
                raw = json.dumps(body).encode()
            except UnicodeEncodeError:
                raw = json.dumps(body, ensure_ascii=True).encode()
            check(furnished(method, path, content=raw, headers=JSON), raw[:200])


def test_a_body_that_is_not_json_is_not_looked_at(furnished) -> None:  # type: ignore[no-untyped-def]
    for method, path, good in GOOD:
        for content_type in ("text/plain", "application/x-www-form-urlencoded", "application/msgpack", ""):
            raw = json.dumps(good).encode()
            response = furnished(method, path, content=raw, headers={"Content-Type": content_type})
            assert response.status_code == 415, (path, content_type)
            check(response, content_type)


def test_a_huge_body_is_refused_before_it_is_read(furnished) -> None:  # type: ignore[no-untyped-def]
    raw = b'{"name":"' + b"x" * (1024 * 1024) + b'"}'
    response = furnished("PUT", "/v1/customers/acme", content=raw, headers=JSON)
    assert response.status_code == 413
    assert response.json()["code"] == "body_too_large"


def test_text_is_never_taken_for_a_number(furnished) -> None:  # type: ignore[no-untyped-def]
    for amount in ("10", 10.0, 10.5, True, -1, 2**53):
        plan = {**PLAN, "limits": [{**LIMIT, "amount": amount}]}
        response = furnished("PUT", "/v1/plans/pro", json=plan)
        assert response.status_code == 400, amount
        assert response.json()["field"] == "limits[0].amount"
