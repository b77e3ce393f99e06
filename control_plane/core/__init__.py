"""What the control plane decides, given everything it needs to know. Pure.

catalog        what a plan says, and the rules it must keep
entitlements   what a customer may use now
"""
