"""Health, headers, the documentation page, and what is said when things go wrong."""

from __future__ import annotations

import logging
import re
import time
from typing import Any

import pytest
from litestar import Litestar
from litestar.testing import TestClient

from control_plane.app import create_app
from control_plane.store import catalog
from control_plane.store.catalog import PlanRow
from control_plane.store.database import Database


def test_every_answer_carries_the_headers_errors_included(client: Any, admin: Any) -> None:
    answers = [
        client.get("/healthz"),
        client.get("/nowhere"),
        client.get("/v1/plans"),
        admin("GET", "/v1/plans"),
        admin("GET", "/v1/plans?limit=x"),
        admin("GET", "/schema/openapi.json"),
    ]
    assert {answer.status_code for answer in answers} == {200, 400, 401, 404}
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")


def test_the_page_loads_everything_from_here(support: Any) -> None:
    page = support("GET", "/schema/swagger")
    assert page.headers["content-type"].startswith("text/html")
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert "<script>" not in page.text
    assert "//" not in page.text.replace("<!DOCTYPE html>", "")
    wanted = re.findall(r'(?:src|href)="(/[^"]+)"', page.text)
    assert len(wanted) == 3
    for path in wanted:
        asset = support("GET", path)
        assert asset.status_code == 200
        assert asset.headers["content-type"].startswith(("text/javascript", "text/css"))
    assert "/schema/openapi.json" in support("GET", "/schema/assets/start.js").text


def test_the_document_describes_bodies_answers_and_tokens(support: Any) -> None:
    document = support.get("/schema/openapi.json")
    plan = document["paths"]["/v1/plans/{plan}"]["put"]
    schemas = document["components"]["schemas"]
    reference = plan["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    assert set(schemas[reference.rsplit("/", 1)[1]]["properties"]) == {
        *("name", "features", "limits", "rates", "price_books", "grants", "unfinished_calls")
    }
    assert set(document["components"]["securitySchemes"]) == {"token", "password"}
    assert plan["tags"] == ["catalog"]
    assert plan["description"].startswith("Publish the plan's next version")
    assert set(plan["responses"]) == {"200", "400", "401", "403", "404", "409", "412", "503"}
    problem = plan["responses"]["409"]["content"]["application/problem+json"]["schema"]["$ref"]
    assert {"code", "field", "error"} <= set(schemas[problem.rsplit("/", 1)[1]]["properties"])
    parameters = document["paths"]["/v1/customers/{customer}/usage"]["get"]["parameters"]
    assert {parameter["name"] for parameter in parameters} == {
        *("customer", "from", "to", "window", "offset", "grain", "zone", "group_by", "limit", "cursor"),
        *("meter", "feature", "model"),
        *("user", "workspace", "role", "api_key", "tag"),
    }


def test_readiness_says_whether_the_database_has_the_schema(client: Any, tmp_path: Any, clock: Any) -> None:
    assert client.get("/readyz").json() == {"status": "ok"}
    empty = Database(f"sqlite:///{tmp_path}/empty.db")
    with TestClient(_app(empty, clock)) as other:
        assert other.get("/healthz").status_code == 200
        assert other.get("/readyz").json()["code"] == "schema_not_current"
    empty.dispose()


def test_a_background_that_has_failed_is_said_by_the_health_route(
    postgresql_server: str, clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    without_schema = Database(postgresql_server)
    with TestClient(_app(without_schema, clock)) as client:
        deadline = time.monotonic() + 10
        while client.get("/healthz").status_code == 200:
            assert time.monotonic() < deadline
        assert client.get("/healthz").json()["code"] == "background_failed"
    without_schema.dispose()
    assert "the background has failed" in caplog.text


def test_a_database_that_can_not_be_reached_is_503_and_try_again(clock: Any) -> None:
    gone = Database("postgresql://nobody@127.0.0.1:1/nothing")
    with TestClient(_app(gone, clock)) as client:
        for path, header in (
            ("/readyz", {}),
            ("/v1/plans", {"Authorization": "Bearer alt_admin_0123456789ab_" + "a" * 43}),
        ):
            answer = client.get(path, headers=header)
            assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
            assert answer.headers["retry-after"] == "1"
            assert "127.0.0.1" not in answer.text
    gone.dispose()


def test_a_fault_of_ours_is_logged_and_tells_nothing(
    admin: Any, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    broken = PlanRow("pro", 1, "Pro", '{"sauce": "secret"}', 0)  # no release wrote such a body
    database.run(lambda connection: catalog.add_plan(connection, broken))
    with caplog.at_level(logging.ERROR):
        answer = admin("GET", "/v1/plans/pro")
    assert answer.status_code == 500
    assert answer.json()["code"] == "internal_error"
    assert "sauce" not in answer.text
    assert "sauce" in caplog.text


def _app(database: Database, clock: Any) -> Litestar:
    return create_app(database, clock)
