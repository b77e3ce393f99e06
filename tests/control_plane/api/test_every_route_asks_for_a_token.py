"""No route but health is open, and each admits only the roles it is for."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import anyio
import pytest
from litestar import Litestar
from litestar.routes import HTTPRoute
from litestar.testing import TestClient

from control_plane.access import BELIEVED_MS, SEEN_FOR_MS
from control_plane.core.tokens import parse
from control_plane.operations.refusals import Unauthenticated
from control_plane.store import tokens as token_rows

OPEN = {"/healthz", "/readyz"}
TOKEN_IN_BODY = {"/v1/agents/enroll"}
AGENTS_ONLY = {"/v1/agents/sync", "/v1/agents/watch"}
SENDERS_TOO = {"/v1/events", "/api/v1/events", "/v1/traces"}


@pytest.fixture
def database_url(postgresql_url: str) -> str:
    """One kind of database: who may ask is decided before it is."""
    return postgresql_url


def walk(app: Litestar) -> Iterator[tuple[str, str]]:
    for route in app.routes:
        assert isinstance(route, HTTPRoute), f"{route.path} is no HTTP route"
        path = "".join(
            f"/{'0123456789ab' if component.name == 'token' else 'x1'}"
            if not isinstance(component, str)
            else f"/{component}"
            for component in route.path_components
        )
        for method in route.methods:
            yield method, path or "/"


def statuses(client: TestClient[Litestar], app: Litestar, header: str | None) -> dict[tuple[str, str], int]:
    headers = {} if header is None else {"Authorization": header}
    return {
        (method, path): client.request(method, path, headers=headers).status_code
        for method, path in walk(app)
        if path not in OPEN | TOKEN_IN_BODY
    }


def test_the_walk_sees_the_routes(app: Litestar) -> None:
    paths = {path for _, path in walk(app)}
    assert len(paths) > 20
    assert {"/v1/customers/x1/balances", "/schema/openapi.json", *OPEN} <= paths


NO_GOOD: list[str | None] = [
    None,
    "Bearer",
    "Bearer alt_admin_0123456789ab_" + "a" * 43,
    "Bearer \x00",
    "Basic !!!",
    "Basic " + base64.b64encode(b"\xff\xfe:x").decode(),
    "Digest x",
]


def test_without_a_good_token_every_route_but_health_answers_401(client: TestClient[Litestar], app: Litestar) -> None:
    for header in NO_GOOD:
        found = statuses(client, app, header)
        assert {route for route, status in found.items() if status != 401} == set(), header
    for path in OPEN:
        assert client.get(path).status_code == 200


def test_each_role_is_admitted_only_where_it_belongs(client: TestClient[Litestar], app: Litestar, tokens) -> None:  # type: ignore[no-untyped-def]
    support = statuses(client, app, f"Bearer {tokens.support}")
    agent = statuses(client, app, f"Bearer {tokens.agent}")
    join = statuses(client, app, f"Bearer {tokens.join}")
    admin = statuses(client, app, f"Bearer {tokens.admin}")
    metrics = statuses(client, app, f"Bearer {tokens.metrics}")
    ingest = statuses(client, app, f"Bearer {tokens.ingest}")
    for method, path in support:
        agents_own = path in AGENTS_ONLY and method != "OPTIONS"
        assert join[method, path] == 403
        assert (agent[method, path] == 403) == (not agents_own), (method, path)
        assert (metrics[method, path] == 403) == ((method, path) != ("GET", "/metrics")), (method, path)
        sends = method == "POST" and path in SENDERS_TOO
        assert (ingest[method, path] == 403) == (not sends), (method, path)
        if method == "OPTIONS":
            continue  # says nothing but which methods there are
        asks = method == "POST" and path.endswith(("/explain/replays", "/v1/what-if"))  # reads, and needs a body
        reads = asks or (method in {"GET", "HEAD"} and path not in AGENTS_ONLY)
        assert (support[method, path] == 403) == (not reads), (method, path)
        assert (admin[method, path] == 403) == (path in AGENTS_ONLY), (method, path)


def test_a_browser_is_asked_for_a_password_and_a_token_will_do(client: TestClient[Litestar], tokens) -> None:  # type: ignore[no-untyped-def]
    refused = client.get("/schema/swagger")
    assert refused.headers["www-authenticate"].startswith("Basic ")
    assert client.get("/schema/swagger", auth=("anything", tokens.support)).status_code == 200
    assert client.get("/schema/swagger", auth=(tokens.support, "")).status_code == 401


def test_a_revoked_token_stops_at_once_here_and_within_five_seconds_elsewhere(  # type: ignore[no-untyped-def]
    app: Litestar, admin, support, clock, database
) -> None:
    from control_plane.app import create_app

    token = support.token.split("_")[2]
    with TestClient(create_app(database, clock)) as elsewhere:
        ask = {"Authorization": f"Bearer {support.token}"}
        assert support("GET", "/v1/plans").status_code == 200
        assert elsewhere.get("/v1/plans", headers=ask).status_code == 200
        revoked = admin.delete(f"/v1/tokens/{token}")
        assert revoked["revoked_at"] is not None
        assert support("GET", "/v1/plans").status_code == 401
        clock.advance(5_000)
        assert elsewhere.get("/v1/plans", headers=ask).status_code == 401


def test_a_token_ends_when_it_was_said_to(admin, client: TestClient[Litestar], clock) -> None:  # type: ignore[no-untyped-def]
    made = admin.post("/v1/tokens", {"role": "support", "name": "for a day", "expires_in_hours": 24})
    ask = {"Authorization": f"Bearer {made['text']}"}
    assert client.get("/v1/plans", headers=ask).status_code == 200
    clock.advance(24 * 3_600_000 - 1)
    assert client.get("/v1/plans", headers=ask).status_code == 200
    clock.advance(1)
    assert client.get("/v1/plans", headers=ask).status_code == 401


def test_secrets_are_shown_once_and_never_kept(admin, database) -> None:  # type: ignore[no-untyped-def]
    made = admin.post("/v1/tokens", {"role": "join", "name": "fleet", "uses": 3})
    secret = made["text"].split("_", 3)[3]
    assert made["item"]["uses_left"] == 3
    for path in ("/v1/tokens?limit=1000", "/v1/audit-log?limit=1000"):
        assert secret not in admin("GET", path).text
    listed = {item["token"]: item for item in admin.get("/v1/tokens")["items"]}
    assert listed[made["item"]["token"]]["name"] == "fleet"
    assert "secret_sha256" not in listed[made["item"]["token"]]


def test_uses_of_tokens_are_written_down_now_and_then_not_by_the_request(app: Litestar, admin, support) -> None:  # type: ignore[no-untyped-def]
    token = support.token.split("_")[2]

    def last_used() -> str | None:
        rows = admin.get("/v1/tokens")["items"]
        return next(row["last_used_at"] for row in rows if row["token"] == token)

    support.get("/v1/plans")
    assert last_used() is None
    app.state.doorkeeper.write_down()
    assert last_used() is not None


def test_those_who_keep_coming_are_checked_all_at_once_and_not_by_their_requests(
    app: Litestar, support, clock, database
):
    doorkeeper = app.state.doorkeeper
    presented = parse(support.token)
    assert presented is not None
    assert anyio.run(doorkeeper.identify, presented).token == presented.token
    clock.advance(BELIEVED_MS - 1)
    doorkeeper.check_again()
    by_another_replica = clock.now_ms()
    database.run(lambda connection: token_rows.revoke(connection, presented.token, by_another_replica))
    clock.advance(BELIEVED_MS - 1)
    assert anyio.run(doorkeeper.identify, presented).token == presented.token, "believed since the check"
    doorkeeper.check_again()
    with pytest.raises(Unauthenticated):
        anyio.run(doorkeeper.identify, presented)


def test_tokens_that_nobody_shows_any_more_are_not_checked_for_ever(app: Litestar, support, clock, database):
    doorkeeper = app.state.doorkeeper
    presented = parse(support.token)
    anyio.run(doorkeeper.identify, presented)
    assert doorkeeper._seen
    clock.advance(SEEN_FOR_MS)
    doorkeeper.check_again()
    assert not doorkeeper._seen
