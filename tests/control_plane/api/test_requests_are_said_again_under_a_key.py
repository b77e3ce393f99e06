"""Under one Idempotency-Key something is made once and answered the same; no secret is kept for it."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from control_plane.api import ALL_HANDLERS
from control_plane.operations.answer_once import KEPT_MS, Once, answer_once
from control_plane.operations.author import Author
from control_plane.store import kept_answers
from control_plane.store.database import Connection, Database
from control_plane.store.trust_tables import kept_answers as table

PAGE = (Path(__file__).parents[3] / "docs" / "api.md").read_text()
TOKENS, GENERATIONS = "/v1/tokens", "/v1/generations"
ORDER = {"role": "support", "name": "for the desk"}
RESTORED = {"reason": "disk lost"}
KEY = "8e03978e-40d5-43e8-bc93-6894a57f9324"


def say(caller: Any, path: str, body: Any, key: str | None = KEY) -> Any:
    return caller("POST", path, json=body, headers={} if key is None else {"Idempotency-Key": key})


def count(admin: Any, path: str) -> int:
    return len(admin.get(path, params={"limit": 1_000})["items"])


def test_a_repeat_is_answered_the_same_and_does_nothing(admin: Any, clock: Any) -> None:
    before = count(admin, GENERATIONS)
    first = say(admin, GENERATIONS, RESTORED)
    assert "Idempotent-Replayed" not in first.headers
    clock.advance(60_000)
    audited = count(admin, "/v1/audit-log")
    for key in (KEY, f'"{KEY}"'):
        again = say(admin, GENERATIONS, RESTORED, key)
        assert (again.status_code, again.content) == (first.status_code, first.content) == (201, first.content)
        assert (again.headers["ETag"], again.headers["Idempotent-Replayed"]) == (first.headers["ETag"], "true")
    assert count(admin, GENERATIONS) == before + 1
    assert count(admin, "/v1/audit-log") == audited


def test_without_a_key_each_request_makes_another(admin: Any) -> None:
    made = {say(admin, TOKENS, ORDER, None).json()["item"]["token"] for _ in range(2)}
    made |= {say(admin, TOKENS, ORDER, key).json()["item"]["token"] for key in ("a", "b")}
    assert len(made) == 4


def test_the_text_of_a_token_is_answered_once_and_kept_nowhere(admin: Any, database: Database) -> None:
    first = say(admin, TOKENS, ORDER).json()
    again = say(admin, TOKENS, ORDER)
    assert again.json() == {"item": first["item"], "text": None}
    assert again.status_code == 201
    (answer,) = database.read(lambda connection: connection.execute(select(table.c.answer)).scalars().all())
    assert first["item"]["token"] in answer
    assert first["text"].rpartition("_")[2] not in answer


@pytest.mark.parametrize(("path", "body"), [(TOKENS, {**ORDER, "name": "another"}), (GENERATIONS, RESTORED)])
def test_a_key_that_was_said_with_something_else_is_refused(admin: Any, path: str, body: Any) -> None:
    say(admin, TOKENS, ORDER)
    before = count(admin, TOKENS), count(admin, GENERATIONS)
    refused = say(admin, path, body)
    assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_key_reused")
    assert refused.json()["field"] == "Idempotency-Key"
    assert (count(admin, TOKENS), count(admin, GENERATIONS)) == before


def test_the_same_said_in_other_bytes_is_the_same(admin: Any) -> None:
    first = say(admin, TOKENS, ORDER).json()
    body = ' {"name": "for the desk", "uses": null,\n "role": "support"} '
    headers = {"Idempotency-Key": KEY, "Content-Type": "application/json"}
    assert admin("POST", TOKENS, content=body, headers=headers).json()["item"] == first["item"]


def test_keys_belong_to_the_token_that_says_them(admin: Any) -> None:
    made = admin.post(TOKENS, {"role": "admin", "name": "a colleague"})
    colleague = type(admin)(admin.client, made["text"])
    assert say(admin, TOKENS, ORDER).json()["item"] != say(colleague, TOKENS, ORDER).json()["item"]


def test_a_refusal_is_not_kept(admin: Any) -> None:
    refused = say(admin, TOKENS, {**ORDER, "uses": 3})
    assert (refused.status_code, refused.json()["field"]) == (400, "uses")
    assert say(admin, TOKENS, ORDER).json()["text"]


@pytest.mark.parametrize("key", ["", " ", '"', '""', "two words", 'one"sided', "x" * 129, "k\tk", "\u00e9"])
def test_what_is_no_key_is_refused(admin: Any, key: str) -> None:
    before = count(admin, TOKENS)
    refused = say(admin, TOKENS, ORDER, key.encode("latin-1"))  # type: ignore[arg-type]
    assert (refused.status_code, refused.json()["field"]) == (400, "Idempotency-Key")
    assert count(admin, TOKENS) == before


def test_an_answer_is_kept_for_two_days_and_then_forgotten(admin: Any, clock: Any, database: Database) -> None:
    first = say(admin, TOKENS, ORDER).json()
    clock.advance(KEPT_MS)
    assert say(admin, TOKENS, ORDER).json()["item"] == first["item"]
    clock.advance(1)
    later = say(admin, TOKENS, ORDER).json()
    assert later["item"]["token"] != first["item"]["token"]
    kept = database.read(lambda connection: connection.execute(select(table.c.answer)).all())
    assert len(kept) == 1


def test_many_at_once_make_one(admin: Any) -> None:
    before = count(admin, GENERATIONS)
    answers: list[Any] = []
    threads = [threading.Thread(target=lambda: answers.append(say(admin, GENERATIONS, RESTORED))) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count(admin, GENERATIONS) == before + 1
    assert len({answer.content for answer in answers if answer.status_code == 201}) == 1
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} <= {"request_in_progress"}


def test_what_is_still_being_done_is_said_so(postgresql_url: str) -> None:
    """On PostgreSQL; on SQLite the second waits for the first, because there is one writer."""
    first, second = Database(postgresql_url), Database(postgresql_url)

    def work(connection: Connection) -> bool:
        assert kept_answers.take_turn(connection, "t", KEY)
        assert kept_answers.take_turn(connection, "t", KEY), "its own turn is its own"
        assert second.run(lambda other: kept_answers.take_turn(other, "t", "another"))
        return second.run(lambda other: kept_answers.take_turn(other, "t", KEY))

    try:
        assert first.run(work) is False
        assert second.run(lambda other: kept_answers.take_turn(other, "t", KEY)) is True, "with the transaction it ends"
    finally:
        first.dispose()
        second.dispose()


class Died(Exception):  # noqa: N818
    """The program, in the middle."""


def test_what_is_made_and_its_answer_are_there_both_or_neither(database: Database) -> None:
    author, asked = Author("t", 1_000), Once(KEY, b"d" * 32)

    def make(connection: Connection) -> str:
        kept_answers.add(connection, kept_answers.Kept("t", "what is made", b"", "", 1_000))
        return "made"

    def die(_: str) -> str:
        raise Died

    def rows(connection: Connection) -> int:
        return len(connection.execute(select(table.c.token)).all())

    with pytest.raises(Died):
        database.run(lambda connection: answer_once(connection, asked, author, lambda: make(connection), die))
    assert database.read(rows) == 0
    done = database.run(lambda connection: answer_once(connection, asked, author, lambda: make(connection), str))
    assert (done, database.read(rows)) == ("made", 2)


def test_the_page_judges_every_route_that_is_posted_to() -> None:
    posted = {
        re.sub(r":str\}", "}", path)
        for handler in ALL_HANDLERS
        if "POST" in handler.http_methods
        for path in handler.paths
    }
    judged = dict(re.findall(r"^\| `POST (/\S+)` \| (.*) \|$", PAGE, re.MULTILINE))
    assert judged.keys() == posted
    with_key = {path for path, said in judged.items() if "Idempotency-Key" in said}
    taking = {
        path
        for handler in ALL_HANDLERS
        for path in handler.paths
        if "idempotency_key" in handler.parsed_fn_signature.parameters
    }
    assert with_key == taking == {TOKENS, GENERATIONS}
    assert f"{KEPT_MS // 3_600_000} hours later" in PAGE
