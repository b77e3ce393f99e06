"""A request that no route takes as it is hears what would be right, in the framework's stead."""

from __future__ import annotations

from typing import Any

import pytest

from control_plane.api.bodies import BODY_BYTES_MAX
from protocol.uplink_messages import SYNC_BYTES_MAX, SYNC_PATH

JSON = {"Content-Type": "application/json"}
TEXT = {"Content-Type": "text/plain"}
MSGPACK = {"Content-Type": "application/msgpack"}


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """One kind of database: none of this reaches it."""
    return sqlite_url


def refused(answer: Any, status: int, code: str) -> str:
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (answer.status_code, problem["status"], problem["code"]) == (status, status, code)
    assert problem["error"]["message"] == problem["detail"]
    return str(problem["detail"])


@pytest.mark.parametrize("path", ["/v1/custommers", "/", "/v1/customers/acme/nothing"])
def test_a_path_that_is_none_is_told_where_the_paths_are(admin: Any, path: str) -> None:
    said = refused(admin("GET", path), 404, "route_not_found")
    assert said == "There is no such path; the API page at /schema/swagger lists them."
    assert admin("GET", "/schema/swagger").status_code == 200


def test_another_method_is_told_which_there_are(admin: Any) -> None:
    answer = admin("PATCH", "/v1/plans/pro")
    said = refused(answer, 405, "method_not_allowed")
    assert said == "This path does not take PATCH; it takes GET, PUT."
    assert answer.headers["allow"] == "GET, OPTIONS, PUT"


def test_too_large_a_body_is_told_how_large_it_may_be(admin: Any, client: Any, tokens: Any) -> None:
    large = admin("PUT", "/v1/customers/acme", content=b"x" * (BODY_BYTES_MAX + 1), headers=JSON)
    assert refused(large, 413, "body_too_large") == f"The body is larger than {BODY_BYTES_MAX} bytes."
    headers = {**MSGPACK, "Authorization": f"Bearer {tokens.agent}"}
    larger = client.post(SYNC_PATH, content=b"x" * (SYNC_BYTES_MAX + 1), headers=headers)
    assert refused(larger, 413, "body_too_large") == f"The body is larger than {SYNC_BYTES_MAX} bytes."


def test_another_content_type_is_told_the_expected_one(admin: Any, client: Any, tokens: Any) -> None:
    said = refused(admin("PUT", "/v1/customers/acme", content=b"{}", headers=TEXT), 415, "content_type_not_supported")
    assert said == "This path takes a JSON body: expected content-type application/json."
    headers = {**TEXT, "Authorization": f"Bearer {tokens.agent}"}
    said = refused(client.post(SYNC_PATH, content=b"", headers=headers), 415, "content_type_not_supported")
    assert said == "This path takes msgpack: expected content-type application/msgpack."
