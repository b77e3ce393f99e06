"""How the schema came to be what tables.py says, one step a file.

env        what Alembic runs to reach the database
versions   the steps, in order; a step that was released never changes
"""
