"""What the control plane says over HTTP: turns requests into operations, and results into answers.

features        features
meters          meters
meter_values    what meters that are made of events came to
plans           plans
catalog_file    the catalog as one file
migrations      subscribers to a newer version of their plan or add-on
price_books     price books
reratings       past usage by other prices
customers       customers and their entitlements
subscriptions   subscriptions
subscription_items   how they are shown
credits         balances, grants, and every movement of credit
overrides       what single customers have otherwise
balances        how limits stand
usage           sums of usage
explanations    why a call is allowed or refused, and what-if
reconciliation  whether the books agree
events          usage events, accepted or not
ingest          usage from elsewhere
cloud_events    CloudEvents as calls
media           bodies that routes read by themselves, in the documentation
otlp            OpenTelemetry spans as usage
span_reading    OTLP's bytes as calls
pieces          many customers' calls, in transactions of some each
unpacking       bodies that come compressed
crowds          how many of one sort are worked on at once
leases          what is lent, and written off
corrections     past usage amended, voided and entered afterwards
adjustments     what is charged by hand
agents          agents, as people see them
journals        ways out of quarantine and limbo
agents_uplink   what agents say: enrol, sync, watch
tokens          tokens
shadow_report   what limits in shadow would have refused
notices         what people are told without asking
periods         billing periods: closed, and their statements
generations     whether the database was restored, and is listened for
audit_log       who changed what
access_log      one log line for each request of a person
metrics         what was taken in, for Prometheus
health          whether it runs, and can serve
docs_page       the OpenAPI document and its page
context         what a handler works with
preconditions   If-Match and its kind
idempotency     Idempotency-Key
verbs           how routes are declared
instants        instants in requests
spans           spans of time in queries
parameters      ids in paths, pages of lists
bodies          request bodies
strictness      what every route refuses
headers         what every answer carries
errors          from what went wrong to a problem document
"""

from __future__ import annotations

from typing import Any

from control_plane.api.adjustments import ADJUSTMENT_HANDLERS
from control_plane.api.agents import AGENT_HANDLERS
from control_plane.api.agents_uplink import UPLINK_HANDLERS
from control_plane.api.audit_log import AUDIT_HANDLERS
from control_plane.api.balances import BALANCE_HANDLERS
from control_plane.api.catalog_file import CATALOG_FILE_HANDLERS
from control_plane.api.corrections import CORRECTION_HANDLERS
from control_plane.api.credits import CREDIT_HANDLERS
from control_plane.api.customers import CUSTOMER_HANDLERS
from control_plane.api.events import EVENT_HANDLERS
from control_plane.api.explanations import EXPLANATION_HANDLERS
from control_plane.api.features import FEATURE_HANDLERS
from control_plane.api.generations import GENERATION_HANDLERS
from control_plane.api.health import HEALTH_HANDLERS
from control_plane.api.ingest import INGEST_HANDLERS
from control_plane.api.journals import JOURNAL_HANDLERS
from control_plane.api.leases import LEASE_HANDLERS
from control_plane.api.meter_values import METER_VALUE_HANDLERS
from control_plane.api.meters import METER_HANDLERS
from control_plane.api.metrics import METRICS_HANDLERS
from control_plane.api.migrations import MIGRATION_HANDLERS
from control_plane.api.notices import NOTICE_HANDLERS
from control_plane.api.otlp import OTLP_HANDLERS
from control_plane.api.overrides import OVERRIDE_HANDLERS
from control_plane.api.periods import PERIOD_HANDLERS
from control_plane.api.plans import PLAN_HANDLERS
from control_plane.api.price_books import PRICE_BOOK_HANDLERS
from control_plane.api.reconciliation import RECONCILIATION_HANDLERS
from control_plane.api.reratings import RERATING_HANDLERS
from control_plane.api.shadow_report import SHADOW_HANDLERS
from control_plane.api.subscriptions import SUBSCRIPTION_HANDLERS
from control_plane.api.tokens import TOKEN_HANDLERS
from control_plane.api.usage import USAGE_HANDLERS

ALL_HANDLERS: list[Any] = [
    *HEALTH_HANDLERS,
    *METRICS_HANDLERS,
    *FEATURE_HANDLERS,
    *METER_HANDLERS,
    *PLAN_HANDLERS,
    *CATALOG_FILE_HANDLERS,
    *MIGRATION_HANDLERS,
    *PRICE_BOOK_HANDLERS,
    *RERATING_HANDLERS,
    *CUSTOMER_HANDLERS,
    *SUBSCRIPTION_HANDLERS,
    *OVERRIDE_HANDLERS,
    *CREDIT_HANDLERS,
    *BALANCE_HANDLERS,
    *USAGE_HANDLERS,
    *METER_VALUE_HANDLERS,
    *SHADOW_HANDLERS,
    *EXPLANATION_HANDLERS,
    *EVENT_HANDLERS,
    *INGEST_HANDLERS,
    *OTLP_HANDLERS,
    *LEASE_HANDLERS,
    *ADJUSTMENT_HANDLERS,
    *CORRECTION_HANDLERS,
    *AGENT_HANDLERS,
    *JOURNAL_HANDLERS,
    *UPLINK_HANDLERS,
    *TOKEN_HANDLERS,
    *GENERATION_HANDLERS,
    *AUDIT_HANDLERS,
    *NOTICE_HANDLERS,
    *PERIOD_HANDLERS,
    *RECONCILIATION_HANDLERS,
]
