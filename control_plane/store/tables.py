"""Every table of the control plane, once. ``customer`` leads every key that belongs to one, so that the schema can be
distributed by customer; quantities are 64-bit integers; instants are milliseconds UTC."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, LargeBinary, MetaData, String, Table, Text, false

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    }
)

KEY = String(128)
COUNTER = String(300)
# SQLite numbers rows by itself only in a column declared INTEGER.
SERIAL = BigInteger().with_variant(Integer, "sqlite")

customers = Table(
    "customers",
    metadata,
    Column("customer", KEY, primary_key=True),
    Column("name", Text, nullable=False),
    # Version of the customer's entitlement: grows by one with every change that can alter it.
    Column("version", BigInteger, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("archived_at_ms", BigInteger),
    # What was resolved last, and until when it holds by itself: `document` is a key of `documents`. Null: never yet.
    Column("document", String(64)),
    Column("changes_at_ms", BigInteger),  # when it may change by itself; 0: it is to be resolved anew
    Column("ends_at_ms", BigInteger),  # when everything will be refused, by what is arranged now
    # By which calendar its windows are told (protocol.windows.Calendar).
    Column("anchor_ms", BigInteger, nullable=False, server_default="0"),
    Column("zone", String(64), nullable=False, server_default="UTC"),
    Column("period_months", Integer, nullable=False, server_default="1"),
    # Before this instant its billing periods are closed: what happened then counts from here on.
    Column("closed_until_ms", BigInteger, nullable=False, server_default="0"),
    Index(None, "changes_at_ms"),
)

features = Table(
    "features",
    metadata,
    Column("feature", KEY, primary_key=True),
    Column("name", Text, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("combine", String(8), nullable=False, server_default="sum"),
    Column("disabled", Boolean, nullable=False, server_default=false()),
)

meters = Table(
    "meters",
    metadata,
    Column("meter", KEY, primary_key=True),
    Column("unit", String(64), nullable=False),
    Column("description", Text, nullable=False),
    Column("combine", String(8), nullable=False, server_default="sum"),
    # Of one that is made of events: JSON of core.aggregates.Aggregate.
    Column("aggregate", Text, nullable=False, server_default=""),
)

# A plan version never changes once written; `body` is JSON of core.plans.PlanBody.
plans = Table(
    "plans",
    metadata,
    Column("plan", KEY, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("published_at_ms", BigInteger, nullable=False),
)

# One limit's counter x one scope value x one window: what leases are cut from. Its ceiling is not stored: it is
# resolved from the entitlement at the moment of each grant, so that it is always as of now.
#   available = ceiling - posted - direct - outstanding
allowances = Table(
    "allowances",
    metadata,
    Column("customer", KEY, primary_key=True),
    Column("counter", COUNTER, primary_key=True),
    Column("scope_value", KEY, primary_key=True),
    Column("window_start_ms", BigInteger, primary_key=True, autoincrement=False),
    Column("window_end_ms", BigInteger, nullable=False),
    Column("posted", BigInteger, nullable=False),  # charged by closed leases
    Column("direct", BigInteger, nullable=False),  # debited without a lease; corrections may make it negative
    Column("outstanding", BigInteger, nullable=False),  # sum of `cap` of leases not closed
    Column("recalled_at_ms", BigInteger, nullable=False),  # last recall round, for its debounce
    # Of a rate (core.rates.Pool): what is saved up of the part that is not lent, as of when; the sum of the bursts that
    # are lent; and the rate and its burst by which the bucket has been filling.
    Column("level", BigInteger, nullable=False, server_default="0"),
    Column("level_at_ms", BigInteger, nullable=False, server_default="0"),
    Column("burst_lent", BigInteger, nullable=False, server_default="0"),
    Column("rate", BigInteger, nullable=False, server_default="0"),
    Column("burst", BigInteger, nullable=False, server_default="0"),
    Index(None, "window_end_ms"),  # for finding those that are long over
)

# What each agent lately asked of an allowance: the input of lease sizing.
demands = Table(
    "demands",
    metadata,
    Column("customer", KEY, primary_key=True),
    Column("counter", COUNTER, primary_key=True),
    Column("scope_value", KEY, primary_key=True),
    Column("agent", KEY, primary_key=True),
    Column("demand_per_min", BigInteger, nullable=False),
    Column("typical", BigInteger, nullable=False),
    Column("seen_at_ms", BigInteger, nullable=False),
)

leases = Table(
    "leases",
    metadata,
    Column("customer", KEY, primary_key=True),
    Column("lease", KEY, primary_key=True),
    Column("counter", COUNTER, nullable=False),
    Column("scope_value", KEY, nullable=False),
    Column("window_start_ms", BigInteger, nullable=False),
    Column("agent", KEY, nullable=False),
    Column("journal", KEY, nullable=False),
    Column("boot", Integer, nullable=False),
    Column("granted", BigInteger, nullable=False),  # never changes
    Column("cap", BigInteger, nullable=False),  # granted less what was given back: only falls
    Column("settled", BigInteger, nullable=False),  # as reported: only grows
    Column("in_flight", BigInteger, nullable=False),
    Column("unreported", BigInteger, nullable=False),
    Column("overage", BigInteger, nullable=False),
    Column("central", Boolean, nullable=False),
    Column("status", String(16), nullable=False),  # open recalled expired limbo closed
    Column("keep", BigInteger, nullable=False),  # of a recalled lease: how much more than used it may keep
    Column("ttl_ms", BigInteger, nullable=False),
    Column("granted_at_ms", BigInteger, nullable=False),
    Column("renewed_at_ms", BigInteger, nullable=False),
    Column("closed_at_ms", BigInteger),
    Column("journaled", Boolean, nullable=False, server_default=false()),  # its holder has spoken of it
    Column("finishing", Boolean, nullable=False, server_default=false()),  # for calls in flight alone
    Column("burst", BigInteger, nullable=False, server_default="0"),  # of a share of a rate: as granted
    Column("level", BigInteger, nullable=False, server_default="0"),  # ... and what was in its bucket then
    Index(None, "agent", "journal", "status"),
    Index(None, "agent", "lease", unique=True),  # agents choose the ids; one id is one lease, whoever it is for
    Index(None, "status", "renewed_at_ms"),  # for finding the silent ones
    Index(None, "customer", "counter", "scope_value", "window_start_ms", "status"),
)

# Append-only ledger of every movement on an allowance; the sums in `allowances` are its fold.
#   kind: grant (+outstanding) | return (-outstanding) | post (-outstanding, +posted) | direct (+direct)
#   `amount` is signed; for `post`, `amount` was charged and `released` freed from outstanding.
entries = Table(
    "entries",
    metadata,
    Column("entry", SERIAL, primary_key=True, autoincrement=True),
    Column("customer", KEY, nullable=False),
    Column("counter", COUNTER, nullable=False),
    Column("scope_value", KEY, nullable=False),
    Column("window_start_ms", BigInteger, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("released", BigInteger, nullable=False),
    Column("cause", String(64), nullable=False),  # ask, idle, settled, unreported, uncharged, correction, duplicate ...
    Column("lease", KEY),
    Column("event", KEY),
    Column("at_ms", BigInteger, nullable=False),
    Index(None, "customer", "counter", "scope_value", "window_start_ms"),
)

# Accepted usage events, append-only. Identity is (customer, event); transport is (journal, boot, seq).
events = Table(
    "events",
    metadata,
    Column("customer", KEY, primary_key=True),
    Column("event", KEY, primary_key=True),
    Column("journal", KEY, nullable=False),
    Column("boot", Integer, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("agent", KEY, nullable=False),
    Column("feature", KEY, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("received_at_ms", BigInteger, nullable=False),
    Column("digest", LargeBinary(32), nullable=False),  # of what it says, without its charges
    Column("body", LargeBinary, nullable=False),  # msgpack of protocol.events.UsageEvent
    Column("corrects", KEY),  # the event that it corrects
    Index(None, "journal", "boot", "seq", unique=True),
    Index(None, "customer", "at_ms"),
    Index(None, "customer", "corrects"),
)

# Events that could not be accepted: kept whole, reported, never silently dropped.
event_conflicts = Table(
    "event_conflicts",
    metadata,
    Column("conflict", SERIAL, primary_key=True, autoincrement=True),
    Column("customer", KEY, nullable=False),
    Column("event", KEY, nullable=False),
    Column("agent", KEY, nullable=False),
    Column("journal", KEY, nullable=False),
    Column("boot", Integer, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("code", String(64), nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("received_at_ms", BigInteger, nullable=False),
    Index(None, "journal", "boot", "seq"),  # for not keeping twice what is sent twice
)

# Maintained sums by hour of the event's own time: what usage queries read instead of events. An event is in the total
# (dimension "") and in the sum of each subject and tag that it names: user, workspace, role, api_key, tag:NAME.
# Sums of one counter lie together, because new counters start from them; so the hour comes late in the key.
rollups = Table(
    "rollups",
    metadata,
    Column("customer", KEY, primary_key=True),
    Column("dimension", String(132), primary_key=True),
    Column("value", KEY, primary_key=True),
    Column("hour_ms", BigInteger, primary_key=True, autoincrement=False),
    Column("meter", KEY, primary_key=True),
    Column("feature", KEY, primary_key=True),
    Column("model", KEY, primary_key=True),  # "" where not said
    Column("quantity", BigInteger, nullable=False),
    Column("events", BigInteger, nullable=False),
)

agents = Table(
    "agents",
    metadata,
    Column("agent", KEY, primary_key=True),
    Column("name", Text, nullable=False),
    Column("enrolled_at_ms", BigInteger, nullable=False),
    Column("revoked_at_ms", BigInteger),
    Column("last_seen_at_ms", BigInteger),
    # The newest of `generations` in which it has said all that it holds.
    Column("generation", Integer, nullable=False, server_default="0"),
)

# One row for each start of an agent on one journal, with how far its events have been accepted.
incarnations = Table(
    "incarnations",
    metadata,
    Column("agent", KEY, primary_key=True),
    Column("journal", KEY, primary_key=True),
    Column("boot", Integer, primary_key=True, autoincrement=False),
    Column("nonce", KEY, nullable=False),
    Column("high_water", BigInteger, nullable=False),
    Column("first_seen_at_ms", BigInteger, nullable=False),
    Column("last_seen_at_ms", BigInteger, nullable=False),
    Column("quarantined", Text),
    # Of the newest of its syncs that asked for something.
    Column("serial", BigInteger, nullable=False, server_default="0"),
)

tokens = Table(
    "tokens",
    metadata,
    Column("token", KEY, primary_key=True),  # the public half: names the token, proves nothing
    Column("secret_sha256", LargeBinary(32), nullable=False),
    Column("role", String(16), nullable=False),  # admin support agent join ingest metrics
    Column("name", Text, nullable=False),
    Column("agent", KEY),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("expires_at_ms", BigInteger),
    Column("revoked_at_ms", BigInteger),
    Column("last_used_at_ms", BigInteger),
    Column("uses_left", Integer),  # join tokens: how many agents may still enrol with it
)

# The change feed that hanging watches read: something about this customer (or this agent's leases) is new.
changes = Table(
    "changes",
    metadata,
    Column("change", SERIAL, primary_key=True, autoincrement=True),
    Column("customer", KEY, nullable=False),
    Column("kind", String(16), nullable=False),  # entitlement recall returned
    Column("agent", KEY),  # of a recall: whose leases are wanted
    Column("at_ms", BigInteger, nullable=False),
    sqlite_autoincrement=True,
)

audit_log = Table(
    "audit_log",
    metadata,
    Column("entry", SERIAL, primary_key=True, autoincrement=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("actor", KEY, nullable=False),
    Column("action", String(64), nullable=False),
    Column("customer", KEY),
    Column("target", String(300), nullable=False),
    Column("body", Text, nullable=False),
    sqlite_autoincrement=True,
)
