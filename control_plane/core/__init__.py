"""What the control plane decides, given everything it needs to know. Pure.

catalog          composes plans by the rules they must keep
catalog_file     the catalog as one file
catalog_changes  what applying one changes, and for whom
plan_migrations  subscriptions from one version to another
texts            free text of people
plans            what plans and add-ons say
feature_values   what static features may be set to
credit_features  those that are never free by mistake
limit_rules      those for its limits
rate_rules       those for its rates
price_books      what models cost, and the rates that a plan makes of it
rerating         past calls by another version of their price book
corrections      the entry that brings a past call to what it should have been
overage          what passes a limit, and what it costs
notices          what people are told, and when a threshold is crossed
statements       what a customer used in a billing period
kinds            what a counter counts: quotas, slots, rates
aggregates       meters that are made of events
rates            who gets how much of a rate, and what is saved up of the rest
subscriptions    what a subscription is at any instant
arrangements     what is written down when somebody arranges something of one
overrides        what one customer has otherwise
credits          in what order grants burn, and what is left of them when they end
explaining       what decision follows for a call, and from what
what_if          what other terms would have done with past calls
combining        makes one of a plan and its add-ons
entitlements     what a customer may use at an instant
tokens           how tokens look, what of them is kept, when one holds
incarnations     who is speaking: a start of an agent on one journal
seals            by what a restored database knows its own grants
learning         listening before lending, after a restore
allocation       how much of an allowance to lend, and how much to ask back
recalls          whom to ask for unused rest
lease_life       what reports and silence do to a lease
exhaustion       when a limit will be reached
grains           how finely usage is told apart in time
spans            which calls of models spans tell of
reconciliation   which events are new, and what no lease paid for
"""
