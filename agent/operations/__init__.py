"""What the agent does, one verb a file. Plain functions on the books: no await, so nothing comes in between.

admit               the way in that check, reserve and extend share
check               may this call go ahead?
reserve             hold it
extend              hold more of it
settle              what it really used
enter_event         a usage event on its way to the disk, with what it charges
release             it did not happen
begin               a model call is about to be sent: what must be held for it
feed                bytes of its answer
end                 it has ended: what it used
record              usage that nobody had reserved
expire              calls in flight whose life is over
report_usage        how the limits of a customer stand
report_status       how the agent is
park                calls that wait, and when they are tried again
compose_sync        what to say to the control plane
adopt_sync          what the control plane answered
give_back           leases that go home
commit_group        what memory gathered, in the shapes of the journal
restore             memory from the journal, at the start
"""
