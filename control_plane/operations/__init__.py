"""What the control plane does: one verb a file, within one transaction of the caller's.

refusals               why something was not done
author                 who makes a change, and what it is written down with
resolve_entitlement    what customers may use now
apply_catalog          declare features and meters, publish plans
apply_file             the same for a whole file, and what that changes for whom
count_subscribers      how many have which terms
migrate_plan           subscribers from older versions of a plan to a newer one
library_prices         what a maintained library knows of prices
change_price_book      publish price books, seed them
rerate_usage           price past calls again
enter_corrections      corrections made here, into the ledger
correct_usage          amends or voids a past call
price_missed           calls that no agent saw, as events by the rates of their time
enter_missed           those events, each with its own result
backfill_usage         the same for one customer, by an order of an admin
accept_spans           the same for calls that spans tell of, each once
accept_elsewhere       the same for whoever sends events from elsewhere
pin_price_books        the price books of a plan that is published
change_customer        add, rename, archive and bring back customers
change_subscription    subscribe; change plan, seats and add-ons, now or later
move_subscription      cancel, pause, resume, past due, paid
change_override        what one customer has otherwise
grant_credits          grant credit, and void what was granted
burn_credits           what was used of a balance is taken from its grants
keep_credits           what time and plans do to credits
read_credits           how credits stand
keep_entitlements      writes down what customers may use, whenever it has changed
read_balances          how a customer's limits stand
explain_decision       why a customer is allowed or refused, now or then
try_plan               who would have been refused under other terms
foresee_exhaustion     when limits will be reached
read_usage             what a customer used
add_to_meters          new events, into the meters that are made of them
make_meters            the same of events that are there already
read_meter             what such a meter came to
check_token            whose token is shown
answer_once            what is said again under one Idempotency-Key
issue_token            make, take in and revoke tokens
enroll_agent           a join token for an identity
take_custody           what settings say of the database: the key of seals, how long to listen
write_off_lease        closes leases of lost holders, openly
release_journal        ends a quarantine
adjust_allowance       charges by hand, or gives back
revoke_agent           an agent that is trusted no longer
sync_together          answers the syncs that wait, on SQLite in one transaction
sync_agent             answers one sync, by those below
exchange               one sync while it is being answered
register_start         which incarnation is speaking
learn_again            after a restore: listen before lending
recognise              is who speaks who it was: strangers, rolled-back disks, who has told all
adopt_sealed           leases that a restored database does not know
keep_for_review        events that must not be counted, and never be lost
settle_reports         what holders say of their leases
read_batches           what a sync brings of events that is new
accept_events          events into the ledger, once
count_shadow           what limits in shadow would have refused
tell_thresholds        when use reaches a threshold, and when it is below it again
make_statement         what was used in a billing period, and what passed its limits
close_period           billing periods that never change any more
sum_events             which sums an event is in
find_wishes            what a sync asks to be lent
grant_leases           lend, or say why not
share_rates            the same for shares of rates
answer_wishes          how either is said
take_back_unheard      what answers that were lost had lent
recall_leases          ask for unused rest back
unit_of_work           what syncs of one transaction read once and write together
accounts               one allowance while it is held
keep_books             allowances, leases and ledger of one transaction
reclaim_leases         leases of silent holders
forget_old             what is older than records are kept for
watch_changes          the change feed in memory, where watches hang
audit_books            recomputes every sum, and names each difference
audit_leases           the same lease by lease, and for shares and slots
audit_usage            the same for sums of usage, from events
audit_meters           the same for meters that are made of events
audit_entries          the same for what the ledger charged for events
reconcile              all of these, some customers at a time
"""
