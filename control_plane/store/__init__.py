"""What the control plane remembers. Import the module, noun first: `customers.find(...)`.

database        the one database: transactions, and when to repeat one
file_claim      one control plane a SQLite file
migrate         brings the schema to the newest version
migrations      how the schema came to be
tables          every table, once
subscription_tables    those for subscriptions, add-ons and overrides
credit_tables   those for credits
correction_tables   those for corrections, closed periods and notices
trust_tables    those for trouble: restored databases, odd syncs
meter_tables    those for meters that are made of events
usage_tables    sums by the minute, and since when there are any
spans           customers that audits look at together
wanted          many keys in one statement
customers       customers and what decides their entitlement
catalog         features, meters, plans
price_tables    those for price books
price_books     price books, with all their versions
reratings       what was ordered to be priced again
corrections     what was corrected by hand
subscriptions   what subscriptions went and will go through
overrides       what single customers have otherwise
credits         grants, and every movement between their accounts
entitlements    what all that resolved to, version by version
tokens          tokens, by their public half
audit_log       who changed what
kept_answers    what requests with an Idempotency-Key were answered
custody         the generation of the database, and the keys that seal grants
troubles        what was odd about the syncs of agents
journals        the disks of agents, for people
agents          agents and their incarnations
leases          what was lent to whom
allowances      the counters that leases are cut from
retention       what nobody needs any longer
ledger          every movement on an allowance
demands         what agents lately asked for
events          usage events
shadow_refusals   what limits in shadow would have refused
notices         what people are told, and which thresholds are crossed
periods         billing periods that are closed
rollups         sums of usage by hour and by minute, maintained
meter_values    what meters that are made of events come to, by the hour
usage           reads those sums, by spans of time
balances        reads how allowances stand
listings        pages of leases, events and agents, for people
changes         the change feed that hanging watches read
"""
