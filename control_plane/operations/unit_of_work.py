"""What the syncs of one transaction read once, and what they write together at its end (Fowler's unit of work).

A sync asks the database a dozen times. Where a change makes hundreds of agents speak at once, most of that is the same
for all of them: the customer's entitlement, the allowance, what others hold of it. Read once and kept, and written in
a few statements for all, a sync of many costs less than half of what it costs alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from control_plane.operations.accounts import Account
from control_plane.operations.learn_again import Trust
from control_plane.store import agents, allowances, changes, custody, customers, demands, leases, ledger
from control_plane.store.agents import Incarnation
from control_plane.store.allowances import Key
from control_plane.store.changes import Change
from control_plane.store.custody import Generation
from control_plane.store.customers import HolderRow
from control_plane.store.database import Connection
from control_plane.store.demands import Demand, Place, Together
from control_plane.store.leases import NOTHING_USED
from control_plane.store.ledger import Entry


class NotTogether(Exception):  # noqa: N818 - reads as what it says
    """Something rare has happened that others of the transaction could not have known: each is to be done alone."""


class Used(NamedTuple):
    """What the holders together say of an allowance's leases that are not closed.

    ``settled_here``, ``in_flight_here``: the parts on leases of the agent that was asked about.
    """

    settled: int
    in_flight: int
    unreported: int
    settled_here: int
    in_flight_here: int
    central: bool


class UnitOfWork:
    """One transaction, in which one agent's sync is answered, or those of several agents, one each.

    Attributes:
        accounts: allowances that are held.
    """

    def __init__(self, connection: Connection, apart: Iterable[str] = ()) -> None:
        """Of ``connection``'s transaction. ``apart``: the agents whose syncs are answered in it."""
        self.connection = connection
        self.accounts: dict[Key, Account] = {}
        self._apart = frozenset(apart)
        self._custody: custody.Custody | None = None
        self._believed: list[tuple[Generation, Trust]] = []
        self._holders: dict[str, HolderRow | None] = {}
        self._asked: dict[Place, dict[str, Together]] = {}
        self._used: dict[Key, dict[str, leases.Used]] = {}
        self._lent: dict[tuple[str, str], leases.Row] = {}
        self._entries: list[tuple[Entry, int]] = []
        self._demands: dict[tuple[Place, str], tuple[Demand, int]] = {}
        self._serials: list[tuple[Incarnation, int]] = []
        self._changes: dict[Change, int] = {}

    def trust(self, registered: int, said: str) -> Trust:
        """Whom to believe in the exchange that begins now (:class:`Trust`)."""
        if self._custody is None:
            self._custody = custody.present(self.connection)
        generation, key = self._custody
        trust = Trust(generation, key, registered, said)
        self._believed.append((generation, trust))
        return trust

    def holders(self, names: Iterable[str]) -> list[HolderRow]:
        """What decides the entitlements of these customers; unknown ones are left out."""
        wanted = set(names)
        if missing := wanted - self._holders.keys():
            self._holders |= dict.fromkeys(missing)
            self._holders |= {row.customer: row for row in customers.holders(self.connection, missing)}
        return [row for name in sorted(wanted) if (row := self._holders[name]) is not None]

    def forget_holder(self, customer: str) -> None:
        """What the customer may use has changed."""
        self._holders.pop(customer, None)

    def lately(self, places: Iterable[Place], since_ms: int) -> Mapping[Place, Sequence[Demand]]:
        """Who has asked of these allowances since then."""
        wanted = set(places)
        if wanted:
            self._write_demands()
        return demands.lately(self.connection, wanted, since_ms)

    def asked_by_others(self, places: Iterable[Place], agent: str, since_ms: int) -> dict[Place, Together]:
        """What all but this agent have asked of these allowances since then."""
        wanted = set(places)
        if missing := wanted - self._asked.keys():
            self._write_demands()
            self._asked |= demands.parts(self.connection, missing, self._apart, since_ms)
        found: dict[Place, Together] = {}
        for place in wanted:
            others = [part for whose, part in self._asked[place].items() if whose != agent]
            found[place] = Together(sum(one.agents for one in others), sum(one.demand_per_min for one in others))
        return found

    def note_demand(self, mine: Mapping[Place, Demand], now_ms: int) -> None:
        """Remember what an agent has just asked for."""
        for place, demand in mine.items():
            self._demands[place, demand.agent] = (demand, now_ms)
            if place in self._asked:
                self._asked[place][demand.agent] = Together(1, demand.demand_per_min)

    def note_serial(self, start: Incarnation, serial: int) -> None:
        """A sync with this number has asked for something."""
        self._serials.append((start, serial))

    def used(self, keys: Iterable[Key], agent: str) -> dict[Key, Used]:
        """What is used on the leases of allowances that are not closed; allowances without any are left out."""
        wanted = set(keys)
        if missing := wanted - self._used.keys():
            self.write_leases()
            self._used |= leases.used(self.connection, missing, self._apart)
        return {key: _together(self._used[key], agent) for key in wanted if self._used[key]}

    def lend(self, rows: Sequence[leases.Row]) -> None:
        """New leases."""
        for row in rows:
            self._lent[row.customer, row.lease] = row
            self.know(row)

    def lent_just_now(self, names: Iterable[tuple[str, str]]) -> list[leases.Row]:
        """Those of these (customer, lease) that were lent in this transaction, and are not written yet."""
        return [row for name in names if (row := self._lent.get(name)) is not None]

    def know(self, row: leases.Row) -> None:
        """A lease that was not known when what is used was read; nothing is used of it yet."""
        if (parts := self._used.get(row.key)) is not None:
            whose = self._part_of(row)
            mine = parts.get(whose, NOTHING_USED)
            parts[whose] = mine._replace(central=mine.central or row.central)

    def move(self, before: leases.Row, after: leases.Row) -> None:
        """A lease was moved on; to be saved by whoever moves it."""
        parts = self._used.get(before.key)
        if parts is None or before.status == leases.CLOSED:
            return
        if after.status == leases.CLOSED and before.central:
            del self._used[before.key]  # whether others are lent call by call, only the database knows
            return
        whose = self._part_of(before)
        mine, left = parts[whose], NOTHING_USED if after.status == leases.CLOSED else after
        parts[whose] = mine._replace(
            settled=mine.settled + left.settled - before.settled,
            in_flight=mine.in_flight + left.in_flight - before.in_flight,
            unreported=mine.unreported + left.unreported - before.unreported,
        )

    def enter(self, entries: Iterable[Entry], now_ms: int) -> None:
        """Movements for the ledger."""
        self._entries += [(entry, now_ms) for entry in entries]

    def announce(self, news: Iterable[Change], now_ms: int) -> None:
        """Tell the watches, once a transaction."""
        self._changes |= dict.fromkeys(news, now_ms)

    def write_leases(self) -> None:
        """Write new leases, for whoever is about to read what is lent."""
        leases.add(self.connection, list(self._lent.values()))
        self._lent = {}

    def write(self) -> None:
        """Write everything but the news."""
        self.write_leases()
        changed = [account for account in self.accounts.values() if account.changed]
        allowances.save(self.connection, [account.row for account in changed])
        for account in changed:
            account.changed = False
        ledger.append(self.connection, self._entries)
        self._entries = []
        self._write_demands()
        agents.note_serials(self.connection, self._serials)
        self._serials = []

    def publish(self) -> None:
        """Write the news: the very last statements of the transaction.

        Raises: NotTogether: a restore was noticed in a transaction of several syncs.
        """
        if len(self._believed) > 1 and any(trust.generation is not known for known, trust in self._believed):
            raise NotTogether
        changes.append(self.connection, list(self._changes), max(self._changes.values(), default=0))
        self._changes = {}

    def _part_of(self, row: leases.Row) -> str:
        return row.agent if row.agent in self._apart else ""

    def _write_demands(self) -> None:
        demands.note(self.connection, [(place, row, at_ms) for (place, _), (row, at_ms) in self._demands.items()])
        self._demands = {}


def _together(parts: Mapping[str, leases.Used], agent: str) -> Used:
    here = parts.get(agent, NOTHING_USED)
    return Used(
        settled=sum(one.settled for one in parts.values()),
        in_flight=sum(one.in_flight for one in parts.values()),
        unreported=sum(one.unreported for one in parts.values()),
        settled_here=here.settled,
        in_flight_here=here.in_flight,
        central=any(one.central for one in parts.values()),
    )
