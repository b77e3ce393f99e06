"""What the control plane does: one verb a file, within one transaction of the caller's.

refusals               why something was not done
resolve_entitlement    what customers may use now
"""
