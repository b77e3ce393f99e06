"""Random walks of the real control plane, on SQLite, and of the model's half side by side: same words, same books."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import msgspec
import pytest

from control_plane.core.plans import Bundle, PlanFeature, PlanLimit
from control_plane.operations.apply_catalog import publish_plan, put_feature
from control_plane.operations.author import Author
from control_plane.operations.change_customer import put_customer
from control_plane.operations.change_subscription import SubscriptionOrder, order
from control_plane.operations.sync_agent import Synced, TurnedAway, sync_agent
from control_plane.store import agents, allowances, leases
from control_plane.store.catalog import FeatureRow
from control_plane.store.database import Connection, Database
from protocol.entitlements import FeatureKind, Limit
from protocol.leases import LeaseReport
from protocol.uplink_messages import Ask, CustomerSync, SyncRequest
from protocol.windows import WindowKind
from tests.model import faults, holder, lender, lending
from tests.model.lender import CLOSED
from tests.model.rules import Broken
from tests.model.state import Machine, Report, Side, Snapshot, Step, World, first

NOW_MS = 1_790_000_000_000
WORLDS = {
    "crashes": World(limit=3, leases=4, crashes=4, partial_steps=True),
    "disks lost": World(limit=3, leases=4, crashes=2, new_disks=2),
    "disks copied": World(limit=3, leases=4, crashes=2, copies=1),
    "disks rolled back": World(limit=3, leases=4, crashes=2, backups=1),
}
UNTRUSTED = {"disks copied", "disks rolled back"}
WALKS = 12
STEPS = 50
LIMIT = Limit("tokens", "output_tokens", 3, WindowKind.DAY)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path_factory.mktemp('model') / 'control-plane.db'}")
    database.migrate()
    database.run(_publish)
    yield database
    database.dispose()


def _publish(connection: Connection) -> None:
    author = Author("test", NOW_MS)
    put_feature(connection, FeatureRow("chat", "chat", FeatureKind.METERED), author)
    limits = (PlanLimit(**msgspec.structs.asdict(LIMIT)),)
    publish_plan(connection, "plan", "plan", Bundle((PlanFeature("chat"),), limits), author)


@dataclass
class Product:
    """One customer and one agent of the real control plane, by the name of the walk."""

    database: Database
    name: str

    def begin(self) -> None:
        def work(connection: Connection) -> None:
            author = Author("test", NOW_MS)
            put_customer(connection, self.name, self.name, author)
            order(connection, self.name, SubscriptionOrder("plan"), author)
            agents.add(connection, self.name, self.name, NOW_MS)

        self.database.run(work)

    def lease(self, number: int) -> str:
        return f"{self.name}-{number}"

    def hear(self, message: Report | Snapshot) -> None:
        """The message arrives, once more or for the first time."""
        whole = isinstance(message, Snapshot)
        reports = message.reports if isinstance(message, Snapshot) else (message,)
        said = tuple(
            LeaseReport(self.lease(one.lease), one.cap, one.settled, 0, one.unreported, one.closed) for one in reports
        )
        self._sync(message, (), said, snapshot=whole)

    def ask(self, machine: Machine, lease: int, need: int) -> int:
        """Ask for a lease; how much was granted, 0 for a denial."""
        ask = Ask(self.lease(lease), LIMIT.counter, "", need, 0, need)
        outcome = self._sync(machine, (CustomerSync(self.name, 0, asks=(ask,)),), (), snapshot=False)
        grants = outcome.reply.grants if isinstance(outcome, Synced) else ()
        return sum(grant.amount for grant in grants)

    def _sync(
        self,
        speaker: Machine | Report | Snapshot,
        customers: tuple[CustomerSync, ...],
        reports: tuple[LeaseReport, ...],
        *,
        snapshot: bool,
    ) -> Synced | TurnedAway:
        journal = f"{self.name}-disk-{speaker.journal}"
        request = SyncRequest(journal, speaker.boot, str(speaker.nonce), customers, reports, (), snapshot)
        return self.database.run(lambda connection: sync_agent(connection, self.name, request, NOW_MS))

    def view(self, side: Side) -> object:
        """What the tables say of the leases and of the allowance, and which journals are quarantined."""

        def look(connection: Connection) -> object:
            names = [self.lease(number) for number in range(len(side.loans))]
            rows = sorted(leases.of_agent(connection, self.name, names), key=lambda row: names.index(row.lease))
            seen = tuple(
                (row.boot, row.granted, row.cap, row.settled, row.unreported, row.status == CLOSED, row.journaled)
                for row in rows
            )
            account = next(iter(allowances.find(connection, {row.key for row in rows})), None)
            sums = (account.posted, account.outstanding) if account else (0, 0)
            return seen, sums, tuple(self._quarantined(connection, at) for at in range(len(side.starts)))

        return self.database.read(look)

    def _quarantined(self, connection: Connection, journal: int) -> bool:
        starts = agents.starts(connection, self.name, f"{self.name}-disk-{journal}")
        return any(start.quarantined for start in starts.values())


def view_of_the_model(side: Side) -> object:
    seen = tuple(
        (one.boot, one.granted, one.cap, one.settled, one.unreported, one.status == CLOSED, one.heard)
        for one in side.loans
    )
    return seen, side.books[:2], tuple(starts.quarantined for starts in side.starts)


def lender_moves(world: World, side: Side, product: Product, random: Random) -> Side:
    """Something is said to both lenders."""
    machine = random.choice(side.machines)
    grants = [step for step in lending.lend(world, side, machine) if step.need <= world.limit - side.books.charged]
    if grants and random.random() < 0.4:
        step = random.choice(grants)
        is_new = len(step.side.loans) > len(side.loans)
        wanted = [len(side.loans)] if is_new else [
            held.lease for held in step.side.machines[side.machines.index(machine)].memory if held not in machine.memory
        ]  # fmt: skip
        granted = product.ask(machine, wanted[0], step.need)
        assert granted == step.side.loans[wanted[0]].cap, step.what
        return step.side
    known = [one for one in side.said if isinstance(one, Snapshot) or _is_introduced(side, one)]
    message = random.choice(sorted(known, key=repr))
    steps: list[Step] = list(lender.hear(world, side, message))
    product.hear(message)
    return random.choice(steps).side if steps else side


def agent_moves(world: World, side: Side, random: Random) -> list[Step]:
    """What agents or their fates may do; leases are given up less often than they could be, else few would live."""
    steps = list(holder.steps(world, side))
    if random.random() < 0.8:
        steps = [step for step in steps if "given up" not in step.what]
    if random.random() < 0.2:
        steps += faults.steps(world, side)
    return steps or [Step("nothing happens", side)]


def _is_introduced(side: Side, report: Report) -> bool:
    """Whether the lender knows this boot: only starts that were answered say anything but their snapshot."""
    return any(boot == report.boot for boot, _ in side.starts[report.journal].known)


def walk(world: World, seed: int, product: Product) -> Counter[str]:
    """Walk both for a while; what came of it."""
    random, side = Random(seed), first(world)
    product.begin()
    for _ in range(STEPS):
        if random.random() < 0.5:
            side = lender_moves(world, side, product, random)
            assert product.view(side) == view_of_the_model(side)
        else:
            side = random.choice(agent_moves(world, side, random)).side
    return Counter(
        lent=len(side.loans),
        closed=sum(loan.status == CLOSED for loan in side.loans),
        returned=sum(loan.cap < loan.granted for loan in side.loans if loan.status != CLOSED),
        quarantined=sum(starts.quarantined for starts in side.starts),
        started=side.nonces - 1,
    )


@pytest.mark.parametrize("name", WORLDS)
def test_every_answer_of_the_control_plane_is_the_models(name: str, database: Database) -> None:
    came: Counter[str] = Counter()
    for seed in range(WALKS):
        came += walk(WORLDS[name], seed, Product(database, f"{name.replace(' ', '-')}-{seed}"))
    expected = {"lent", "closed", "returned", "started"} | ({"quarantined"} if name in UNTRUSTED else set())
    assert set(came) == expected, came


@pytest.mark.parametrize(
    ("broken", "name"),
    [
        (Broken.NEW_DISK_RELEASES, "disks lost"),
        (Broken.START_CLOSES_ALL, "crashes"),
        (Broken.LAST_WORD_WINS, "crashes"),
        (Broken.NEWER_BOOT_CLOSED, "crashes"),
        (Broken.BOOT_ORDER_IGNORED, "crashes"),
        (Broken.NONCE_IGNORED, "disks copied"),
        (Broken.LOST_LEASES_BELIEVED, "disks rolled back"),
    ],
)
def test_a_model_with_another_rule_is_told_from_the_control_plane(
    broken: Broken, name: str, database: Database
) -> None:
    def walks() -> None:
        for seed in range(2 * WALKS):
            walk(WORLDS[name]._replace(broken=broken), seed, Product(database, f"{broken.name.lower()}-{seed}"))

    with pytest.raises(AssertionError):
        walks()
