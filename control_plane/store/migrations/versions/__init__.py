"""The migrations.

v0001_first_schema   every table of the first release
"""
