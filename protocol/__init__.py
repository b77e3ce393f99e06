"""What the agent and the control plane both say. Pure: no I/O, no clocks, nothing of ours below it.

ids                identifiers and their patterns
units              quantities, meters, token classes
instants           milliseconds and RFC 3339
windows            half-open spans, computed from instants
admission          on what terms a call is admitted
entitlements       limits, features, and the document that holds them
rates              rate cards: what a call is turned into, by feature, model and token class
decisions          allow, throttle, block, and why
leases             grants, reports, recalls
events             usage events and their batches
local_messages     application <-> agent
uplink_messages    agent <-> control plane
framing            length-prefixed frames, sans I/O
codec              typed, bounded decoding
complaints         what exactly was wrong in a refused message
violations         the one error for wrong input
WIRE.md            the bytes, for people who write a client in another language
"""
