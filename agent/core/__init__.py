"""Pure rules: no I/O, no clocks, no randomness.

leases         one lease, and what of it may be told
budget         allowances: the leases of one counter, and what may be spent of them
slots          what may be held at the same time
rates          shares of a rate, and their token buckets
kinds          which of these belongs to a counter
decide         may this call go ahead?
derived        meters that rates make of others
lacking        what it comes to that a limit has no room
answers        decisions in words and numbers
problem_details   what a reply is in HTTP
reservations   what calls in flight hold, and how ended ones ended
pending        what memory knows and the disk does not yet
books          all of the agent's state, in one place with one owner
ahead          when the next window's lease is asked for
demand         when to ask for more, when to give back
tokens         usage of any provider, whole or streamed, to our token classes and meters
attribution    whose call it is, by the headers of a request
paths          what the path of a model call tells
fetched        what a provider says only when it is asked later
prompts        what the body of a request tells of its cost
passing        calls that another proxy passes on
told           what a model call's request tells
estimate       how much to hold before a call and while it streams, and what to charge when it broke off
undeclared     meters that the catalog does not count are left out
unfinished     what a plan charges of calls whose provider has not said what they used
metered_call   one model call on its way: held, watched, and what it comes to
tally          what calls used, by model and class
calls          those whose answers are fed to this agent
pace           how often to report what was used
"""
