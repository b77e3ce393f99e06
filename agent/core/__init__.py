"""Pure rules: no I/O, no clocks, no randomness.

budget         leases and allowances: what may be spent
decide         may this call go ahead?
answers        decisions in words and numbers
reservations   what calls in flight hold, and how ended ones ended
pending        what memory knows and the disk does not yet
books          all of the agent's state, in one place with one owner
demand         when to ask for more, when to give back
"""
