"""A real LLM workload, metered and limited by real agents against a real control plane: ``make run``.

__main__   the story, from start to audit
settings   what may be set, and its defaults
workload   the trace, and who its calls belong to
fleet      the control plane and the agents as processes
admin      what an admin does over the API: catalog, customers, reading the books
callers    the applications: reserve, use, settle
audit      what the callers were told against what the ledger says
report     tables for people, JSON for machines
"""
