"""Allotment inside what other people wrote; each module is imported only where its library is in use.

asgi           ``Gate``: routes of an ASGI application, opened feature by feature
"""
