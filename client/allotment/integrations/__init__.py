"""Allotment inside what other people wrote; each module is imported only where its library is in use.

asgi            ``Gate``: routes of an ASGI application, opened feature by feature
langchain       ``AllotmentCallback`` and ``AsyncAllotmentCallback``: calls of models in LangChain
langchain_runs  what LangChain tells of a run
litellm         ``AllotmentHooks``: the calls of a LiteLLM proxy
litellm_calls   what LiteLLM tells of a call
opentelemetry   ``AllotmentSpanProcessor``: calls that spans tell of, counted after the fact
spans           what a span tells of a call, and which spans tell of the same
amounts         prompts by their bytes, usage in disjoint token classes
"""
