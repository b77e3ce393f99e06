"""The control plane's half, listening: it takes in what is said by calling the product's own pure functions.

Around them stands what ``control_plane.operations`` does for one allowance: ``register_start``, ``recognise``, and
``settle_reports``.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from control_plane.core import lease_life
from control_plane.core.incarnations import Standing, standing
from control_plane.core.lease_life import Heard, Life, Movement, Status
from tests.model.rules import Broken
from tests.model.state import Loan, Machine, Report, Side, Snapshot, Step, World, put

CLOSED = Status.CLOSED.value
COUNTS = frozenset({Standing.CURRENT, Standing.LATE, Standing.NEW_BOOT, Standing.NEW_JOURNAL})


def steps(world: World, side: Side) -> Iterator[Step]:
    """Every message that may arrive now."""
    for message in side.said:
        yield from hear(world, side, message)


def hear(world: World, side: Side, message: Report | Snapshot) -> Iterator[Step]:
    """A message arrives, perhaps late, perhaps again."""
    after, speaker = register(world, side, message)
    if speaker not in COUNTS:
        if after is not side:
            yield Step(f"{_name(message)} arrives: the journal is quarantined", after)
        return
    if isinstance(message, Snapshot):
        if _lost_leases(world, after, message, speaker):
            yield Step(
                f"{_name(message)} arrives, and lacks a lease: quarantined", _quarantined(after, message.journal)
            )
        else:
            yield Step(f"{_name(message)} arrives", _hear_snapshot(world, after, message, speaker))
        return
    yield from _hear_one(world, after, message, speaker)


def register(world: World, side: Side, message: Report | Snapshot) -> tuple[Side, Standing]:
    """``register_start``: who is speaking."""
    starts = side.starts[message.journal]
    speaker = speaker_of(starts.known, message.boot, message.nonce, isinstance(message, Snapshot))
    if speaker is Standing.COPIED and world.broken is Broken.NONCE_IGNORED:
        return _quarantined(side, message.journal), Standing.CURRENT
    if starts.quarantined and world.broken is not Broken.NONCE_IGNORED:
        return side, Standing.COPIED
    match speaker:
        case Standing.COPIED:
            side = _quarantined(side, message.journal)
        case Standing.NEW_JOURNAL | Standing.NEW_BOOT:
            starts = starts._replace(known=(*starts.known, (message.boot, message.nonce)))
            side = side._replace(starts=put(side.starts, message.journal, starts))
        case _:
            return side, speaker
    return _left_in_limbo(world, side, message, speaker), speaker


def _quarantined(side: Side, journal: int) -> Side:
    starts = side.starts[journal]._replace(quarantined=True)
    return side._replace(starts=put(side.starts, journal, starts))


def _left_in_limbo(world: World, side: Side, message: Report | Snapshot, speaker: Standing) -> Side:
    """``_quarantine`` for the journal itself, ``_leave_in_limbo`` for what an earlier disk of the agent held."""
    for lease, loan in enumerate(side.loans):
        here = loan.journal == message.journal
        if loan.status == CLOSED or here != (speaker is Standing.COPIED) or speaker is Standing.NEW_BOOT:
            continue
        if world.broken is Broken.NEW_DISK_RELEASES and speaker is Standing.NEW_JOURNAL:
            side = move(side, lease, loan, *closed(life_of(loan), "lost"))
        elif world.marks:
            side = side._replace(loans=put(side.loans, lease, loan._replace(status=Status.LIMBO.value)))
    return side


@cache
def speaker_of(known: tuple[tuple[int, int], ...], boot: int, nonce: int, snapshot: bool) -> Standing:
    return standing({number: str(said) for number, said in known}, boot, str(nonce), snapshot=snapshot)


def _lost_leases(world: World, side: Side, snapshot: Snapshot, speaker: Standing) -> bool:
    """``recognise.lost_leases``: what was once reported stays on the disk until its holder hears that it is closed."""
    if speaker is not Standing.NEW_BOOT or world.broken is Broken.LOST_LEASES_BELIEVED:
        return False
    listed = {report.lease for report in snapshot.reports}
    return any(
        loan.heard and loan.journal == snapshot.journal and loan.boot < snapshot.boot and loan.status != CLOSED
        for lease, loan in enumerate(side.loans)
        if lease not in listed
    )


def _hear_snapshot(world: World, side: Side, snapshot: Snapshot, speaker: Standing) -> Side:
    """``settle_reports`` for a first sync: what it does not list was never used; what it lists is heard."""
    listed = {report.lease for report in snapshot.reports}
    for lease, loan in enumerate(side.loans):
        if loan.journal == snapshot.journal and loan.status != CLOSED:
            unlisted = lease not in listed and _is_before(world, loan, snapshot, speaker)
            if unlisted or world.broken is Broken.START_CLOSES_ALL:
                side = move(side, lease, loan, *closed(life_of(loan), "unused"))
    for report in snapshot.reports:
        if side.loans[report.lease].journal == snapshot.journal:
            side = _take_in(world, side, report)
    return side


def _is_before(world: World, loan: Loan, snapshot: Snapshot, speaker: Standing) -> bool:
    """``_close_unused``: granted to an earlier start; and nothing is closed at the word of a start that is over."""
    if world.broken is Broken.NEWER_BOOT_CLOSED:
        return loan.boot != snapshot.boot
    if world.broken is Broken.LATE_SNAPSHOT_CLOSES:
        return loan.boot < snapshot.boot
    return loan.boot < snapshot.boot and speaker is not Standing.LATE


def _hear_one(world: World, side: Side, report: Report, speaker: Standing) -> Iterator[Step]:
    """A report of one lease; the events that came with it count on their own. The answer may be lost."""
    name = _name(report)
    repaid = side.loans[report.lease].repaid
    if report.repeated > repaid:
        loan = side.loans[report.lease]._replace(repaid=report.repeated)
        books = side.books._replace(direct=side.books.direct - (report.repeated - repaid))
        told = side._replace(loans=put(side.loans, report.lease, loan), books=books)
        yield Step(f"the events told with {name} arrive: recorded before, so given back", told)
    if speaker is Standing.LATE and world.broken is Broken.LATE_REPORTS_IGNORED:
        return
    after = _take_in(world, side, report)
    yield Step(f"{name} arrives", after)
    if report.closed and after.loans[report.lease].status == CLOSED and speaker is Standing.CURRENT:
        for at, machine in enumerate(after.machines):
            if _speaks(machine, report) and any(held.lease == report.lease for held in machine.memory):
                yield from _forget(after, at, machine, report)


def _forget(side: Side, at: int, machine: Machine, report: Report) -> Iterator[Step]:
    """The answer says ``closed``, and so did the question: ``adopt_sync.forget_lease``. (Else the lease is given up, as
    it may be at any time.) The row on disk goes with the next group, or a crash comes first."""
    memory = tuple(held for held in machine.memory if held.lease != report.lease)
    disk = tuple(row for row in machine.disk if row.lease != report.lease)
    for kept, what in ((disk, "on disk too"), (machine.disk, "in memory")):
        agent = machine._replace(memory=memory, disk=kept)
        yield Step(
            f"{_name(report)} arrives; its sender hears that it is closed, and forgets it {what}",
            side._replace(machines=put(side.machines, at, agent)),
        )


def _take_in(world: World, side: Side, report: Report) -> Side:
    """``settle_reports._hear``."""
    loan = side.loans[report.lease]
    before = life_of(loan)
    stale = loan.boot > report.boot and world.broken is not Broken.BOOT_ORDER_IGNORED
    heard = (report.cap, report.settled, report.unreported, report.closed, stale)
    if world.broken is Broken.LAST_WORD_WINS:
        life, movement = _last_word(before, heard)
    elif world.broken is Broken.SPLIT_COUNTED_TWICE:
        split = max(loan.settled, report.settled) - report.settled
        life, movement = _hear(before, (*heard[:2], report.unreported + split, *heard[3:]))
    else:
        life, movement = _hear(before, heard)
    if world.broken is Broken.LATE_NEWS_IGNORED and loan.status == CLOSED:
        return side
    if life.status is not Status.CLOSED and not stale:
        loan = loan._replace(boot=report.boot, heard=True)
    if life == before and loan == side.loans[report.lease]:
        return side
    return move(side, report.lease, loan, life, movement)


@cache
def life_of(loan: Loan) -> Life:
    return Life(loan.granted, loan.cap, loan.settled, 0, loan.unreported, Status(loan.status), loan.keep)


@cache
def _hear(life: Life, said: tuple[int, int, int, bool, bool]) -> tuple[Life, Movement]:
    cap, settled, unreported, closed, stale = said
    return lease_life.hear(life, Heard(cap, settled, 0, unreported, closed, stale))


@cache
def closed(life: Life, cause: str) -> tuple[Life, Movement]:
    return lease_life.close(life, cause)


def _last_word(life: Life, said: tuple[int, int, int, bool, bool]) -> tuple[Life, Movement]:
    cap, settled, unreported, closed, _ = said
    if life.status is Status.CLOSED or closed:
        return _hear(life, said)
    news = Life(life.granted, cap, settled, 0, unreported, Status.OPEN, 0)
    return news, Movement(returned=life.cap - cap)


def move(side: Side, lease: int, loan: Loan, life: Life, movement: Movement) -> Side:
    """``keep_books.Books.move``."""
    books = side.books
    if movement.returned or movement.released or movement.posted:
        outstanding = books.outstanding - movement.returned - movement.released
        books = books._replace(posted=books.posted + movement.posted, outstanding=outstanding)
    loan = loan._replace(
        cap=life.cap,
        settled=life.settled,
        unreported=life.unreported,
        status=life.status.value,
        keep=life.keep,
    )
    return side._replace(loans=put(side.loans, lease, loan), books=books)


def _speaks(machine: Machine, message: Report | Snapshot) -> bool:
    return (machine.journal, machine.boot, machine.nonce) == (message.journal, message.boot, message.nonce)


def start_words(machine: Machine | Report | Snapshot) -> str:
    return f"start {machine.nonce} (journal {machine.journal}, boot {machine.boot})"


@cache
def _name(message: Report | Snapshot) -> str:
    if isinstance(message, Snapshot):
        told = ", ".join(_numbers(report) for report in message.reports) or "no leases"
        return f"the snapshot of {start_words(message)} with {told}"
    return f"the report of {start_words(message)} on {_numbers(message)}"


def _numbers(report: Report) -> str:
    closed = ", closed" if report.closed else ""
    return f"lease {report.lease} [cap {report.cap}, settled {report.settled}, orphan {report.unreported}{closed}]"
