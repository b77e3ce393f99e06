"""What the agent does again and again, without input: each loop looks at the books and does what is due.

wake           "look again", said cheaply from plain functions
one_thread     the thread that touches the journal's file
write_events   the journal's only writer: group commit
introduce      what a snapshot says beyond the live leases: closed ones, and grants that are to be shown
sync           events up, leases down
watch          the hanging request through which changes arrive
tick           deadlines, expiry, idle leases, stalled connections
"""
