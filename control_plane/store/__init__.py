"""What the control plane remembers. Import the module, noun first: `customers.find(...)`.

database     the one database: transactions, and when to repeat one
file_claim   one control plane a SQLite file
migrate      brings the schema to the newest version
migrations   how the schema came to be
tables       every table, once
customers    customers and what decides their entitlement
catalog      features, meters, plans
"""
