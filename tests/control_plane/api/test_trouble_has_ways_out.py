"""Lost holders, quarantines and restores as an admin meets them: seen, explained, and ended openly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from control_plane.api.errors import BUSY_S
from control_plane.cli.commands import main
from control_plane.operations.audit_books import check_books
from control_plane.operations.reclaim_leases import expire_silent, leave_lost_in_limbo
from control_plane.operations.sync_together import WAITING_MAX
from protocol.codec import encode_msgpack
from protocol.leases import Grant, LeaseReport
from protocol.uplink_messages import ENROLL_PATH, MSGPACK, SYNC_PATH, Ask, CustomerSync, SyncReply, SyncRequest

DAY = "*/requests/day/customer"
WHY = {"reason": "the host burnt down"}


class Holder:
    """The agent ``agent-1`` on one disk."""

    def __init__(self, client: Any, token: str, journal: str = "journal-1") -> None:
        self.client = client
        self.headers = {"Authorization": f"Bearer {token}", "Content-Type": MSGPACK}
        self.journal = journal
        self.snapshot = True

    def post(self, *leases: LeaseReport, boot: int = 1, nonce: str = "nonce", customers: Any = (), **more: Any) -> Any:
        request = SyncRequest(self.journal, boot, nonce, tuple(customers), leases, snapshot=self.snapshot, **more)
        self.snapshot = False
        return self.client.post(SYNC_PATH, content=encode_msgpack(request), headers=self.headers)

    def sync(self, *leases: LeaseReport, **more: Any) -> SyncReply:
        answer = self.post(*leases, **more)
        assert answer.status_code == 200, answer.text
        return msgspec.msgpack.decode(answer.content, type=SyncReply)

    def borrow(self, lease: str, need: int) -> Grant:
        ask = Ask(lease, DAY, "", need, 1, 0)
        (grant,) = self.sync(customers=[CustomerSync("acme", 0, asks=(ask,))]).grants
        return grant


@pytest.fixture
def holder(client: Any, tokens: Any, admin: Any) -> Holder:
    limits = [
        {"key": "daily", "meter": "requests", "amount": 1000, "window": "day"},
        {"key": "slots", "meter": "requests", "amount": 10, "window": "in_flight"},
    ]
    admin.put("/v1/features/chat", {"name": "Chat", "kind": "metered"})
    admin.put("/v1/plans/pro", {"name": "Pro", "features": [{"feature": "chat"}], "limits": limits})
    admin.put("/v1/customers/acme", {"name": "Acme"})
    admin.put("/v1/customers/acme/subscription", {"plan": "pro"})
    return Holder(client, tokens.agent)


def balance(admin: Any) -> tuple[int, int, int]:
    item = admin.get("/v1/customers/acme/balances")["items"][0]
    return item["used"], item["limbo"], item["remaining"]


def fall_silent(database: Any, clock: Any, ms: int = 700_000) -> None:
    clock.advance(ms)
    for sweep in (expire_silent, leave_lost_in_limbo):
        database.run(lambda connection, sweep=sweep: sweep(connection, clock.now_ms()))


def test_a_lost_holder_is_seen_and_its_lease_is_written_off(
    admin: Any, holder: Holder, database: Any, clock: Any
) -> None:
    grant = holder.borrow("lease-1", 100)
    holder.sync(LeaseReport("lease-1", grant.amount, settled=30, in_flight=10))
    path = "/v1/customers/acme/leases/lease-1/write-off"
    refused = admin("POST", path, json=WHY)
    assert (refused.status_code, refused.json()["code"]) == (409, "lease_in_use")
    fall_silent(database, clock)
    assert balance(admin) == (30, grant.amount - 30, 960)
    (agent,) = [item for item in admin.get("/v1/agents")["items"] if item["agent"] == "agent-1"]
    assert agent == admin.get("/v1/agents/agent-1")
    (journal,) = agent["journals"]
    assert (journal["state"], journal["limbo_leases"], journal["limbo"]) == ("current", 1, grant.amount - 30)
    (listed,) = admin.get("/v1/leases?status=limbo&agent=agent-1")["items"]
    assert (listed["lease"], listed["customer"], listed["journal"]) == ("lease-1", "acme", "journal-1")
    closed = admin.post(path, WHY)
    assert (closed["status"], closed["cap"]) == ("closed", 40)
    assert admin.post(path, {**WHY, "used": 99}) == closed, "said again, nothing changes"
    assert balance(admin) == (40, 0, 960)
    (entry,) = [item for item in admin.get("/v1/audit-log")["items"] if item["action"] == "lease.write_off"]
    assert (entry["body"]["reason"], entry["body"]["used"], entry["customer"]) == (WHY["reason"], 40, "acme")
    reply = holder.sync(LeaseReport("lease-1", grant.amount, settled=70))
    assert reply.closed == ("lease-1",)
    assert balance(admin)[0] == 70, "what the holder says later is the truth still"
    holder.sync(LeaseReport("lease-1", 75, settled=70, unreported=5, closed=True))
    assert balance(admin)[0] == 75
    assert database.read(check_books) == []


@pytest.mark.parametrize(("used", "status"), [(29, 400), (30, 200), (100, 200), (2**53, 400), (-1, 400)])
def test_a_write_off_charges_no_less_than_is_known_and_no_more_than_was_lent(
    admin: Any, holder: Holder, database: Any, clock: Any, used: int, status: int
) -> None:
    holder.borrow("lease-1", 100)
    holder.sync(LeaseReport("lease-1", 100, settled=30))
    fall_silent(database, clock)
    answer = admin("POST", "/v1/customers/acme/leases/lease-1/write-off", json={**WHY, "used": used})
    assert (answer.status_code, answer.json().get("field")) == (status, None if status == 200 else "used")
    assert status == 400 or balance(admin)[0] == used


@pytest.mark.parametrize(
    "body", [{}, {"reason": ""}, {"reason": "x" * 501}, {"reason": "a\nb"}, {"reason": "x", "y": 1}]
)
def test_who_writes_off_says_why(admin: Any, holder: Holder, body: dict[str, Any]) -> None:
    assert admin("POST", "/v1/customers/acme/leases/lease-1/write-off", json=body).status_code == 400


def test_what_is_not_there_is_not_written_off(admin: Any, holder: Holder) -> None:
    for path in (
        "/v1/customers/acme/leases/nothing/write-off",
        "/v1/customers/nobody/leases/lease-1/write-off",
        "/v1/agents/agent-1/journals/nothing/write-off",
        "/v1/agents/agent-1/journals/nothing/release",
    ):
        assert admin("POST", path, json=WHY).status_code == 404
    assert admin("GET", "/v1/agents/nobody").status_code == 404
    assert admin("GET", "/v1/leases").json()["field"] == "status"


def test_slots_are_given_back_and_never_charged(admin: Any, holder: Holder, database: Any, clock: Any) -> None:
    ask = Ask("slot-1", "*/requests/in_flight/customer", "", 2, 1, 0)
    (grant,) = holder.sync(customers=[CustomerSync("acme", 0, asks=(ask,))]).grants
    holder.sync(LeaseReport("slot-1", grant.amount, settled=0, in_flight=2))
    fall_silent(database, clock)
    path = "/v1/customers/acme/leases/slot-1/write-off"
    assert admin("POST", path, json={**WHY, "used": 1}).json()["field"] == "used"
    assert admin.post(path, WHY)["cap"] == 0
    assert database.read(check_books) == []


def test_a_copied_disk_is_explained_and_released_when_only_one_copy_lives(
    admin: Any, holder: Holder, database: Any, clock: Any
) -> None:
    grant = holder.borrow("lease-1", 100)
    holder.sync(LeaseReport("lease-1", grant.amount, settled=10))
    answer = holder.post(nonce="copy")
    assert (answer.status_code, answer.json()["code"]) == (409, "journal_quarantined")
    assert holder.post().status_code == 409
    new = Holder(holder.client, "", "journal-2")
    new.headers = holder.headers
    new.sync()
    states = {item["journal"]: item for item in admin.get("/v1/agents/agent-1")["journals"]}
    assert (states["journal-1"]["state"], states["journal-2"]["state"]) == ("quarantined", "current")
    assert "started twice" in states["journal-1"]["why_quarantined"]
    assert states["journal-1"]["limbo"] == grant.amount - 10
    assert {trouble["code"] for trouble in admin.get("/v1/agents/agent-1")["troubles"]} == {"journal_quarantined"}
    path = "/v1/agents/agent-1/journals/journal-1"
    assert admin.post(f"{path}/release", WHY)["released"]
    assert not admin.post(f"{path}/release", WHY)["released"]
    assert holder.sync(LeaseReport("lease-1", grant.amount, settled=10)).renewed, "its holder speaks of it again"
    assert holder.post(nonce="copy").status_code == 409
    assert admin.post(f"{path}/write-off", WHY)["leases"] == 1
    assert admin.post(f"{path}/write-off", WHY)["leases"] == 0
    assert balance(admin) == (10, 0, 990)
    audited = [item["action"] for item in admin.get("/v1/audit-log")["items"]]
    wanted = ["lease.write_off", "journal.quarantine", "journal.release", "journal.quarantine"]
    assert [action for action in audited if action.startswith(("journal", "lease"))] == wanted
    assert database.read(check_books) == []


def test_people_charge_and_give_back_by_hand_once_for_each_id(admin: Any, holder: Holder, database: Any) -> None:
    path = "/v1/customers/acme/adjustments/"
    body = {"limit": "daily", "amount": 50, **WHY}
    assert admin.put(path + "one", body) == {"adjustment": "one", "added": True}
    assert admin.put(path + "one", body) == {"adjustment": "one", "added": False}
    assert balance(admin)[0] == 50
    assert admin.put(path + "two", {**body, "amount": -20})["added"]
    assert balance(admin)[0] == 30
    assert admin("PUT", path + "three", json={**body, "limit": "nothing"}).status_code == 404
    assert admin("PUT", path + "three", json={**body, "limit": "slots"}).json()["field"] == "limit"
    assert admin("PUT", path + "three", json={**body, "amount": 2**53}).status_code == 400
    assert database.read(check_books) == []


def test_everybody_sees_that_the_control_plane_is_learning(
    admin: Any, client: Any, holder: Holder, database: Any, clock: Any
) -> None:
    holder.sync()
    assert client.get("/readyz").json() == {"status": "ok"}
    begun = admin.post("/v1/generations", {"reason": "put back last night's"})
    assert (begun["cause"], begun["learning"], begun["agents_missing"]) == ("told", True, 1)
    assert client.get("/readyz").json() == {"status": "ok", "mode": "learning"}
    first, second = admin.get("/v1/generations")["items"]
    assert (first["name"], second["cause"], second["learning"]) == (begun["name"], "made", False)
    ask = Ask("lease-1", DAY, "", 1, 1, 0)
    (denial,) = holder.sync(customers=[CustomerSync("acme", 0, asks=(ask,))]).denials
    assert not denial.exhausted
    clock.advance(600_000)
    assert client.get("/readyz").json() == {"status": "ok"}
    assert holder.borrow("lease-2", 1)


def test_commands_do_the_same(sqlite_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ALLOTMENT_DATABASE_URL", sqlite_url)

    def said(*words: str) -> tuple[int, str]:
        result = CliRunner().invoke(main, list(words))
        return result.exit_code, result.output

    status, text = said("restored", "--reason", "a drill")
    assert (status, text.startswith("Generation 2-")) == (0, True)
    status, text = said("write-off", "--customer", "acme", "--lease", "nothing", "--reason", "x")
    assert (status, "has no lease" in text) == (1, True)
    status, text = said("release-journal", "--agent", "a", "--journal", "b", "--reason", "x")
    assert (status, "has no journal" in text) == (1, True)
    assert said("restored", "--reason", "a\nb")[0] == 2
    assert said("restored")[0] == 2


class Crowded:
    """Turns for which many wait already."""

    def statistics(self) -> Any:
        return type("Statistics", (), {"tasks_waiting": WAITING_MAX})


def test_who_comes_when_hundreds_wait_is_told_when_to_come_again(
    client: Any, app: Any, holder: Holder, tokens: Any
) -> None:
    holder.sync()
    app.state.sync_desk._threads = app.state.joining_turns = Crowded()
    joining = client.post(ENROLL_PATH, json={"join_token": tokens.join, "name": "late"})
    for answer in (holder.post(), joining):
        assert (answer.status_code, answer.json()["code"]) == (503, "busy")
        assert answer.headers["retry-after"] == str(BUSY_S)
