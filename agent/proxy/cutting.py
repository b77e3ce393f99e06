"""How a stream ends that may use no more. Pure."""

from __future__ import annotations

from agent.core.problem_details import details
from protocol.codec import encode_json
from protocol.decisions import Decision
from protocol.local_messages import ErrorReply


def last_words(provider: str, why: Decision | ErrorReply) -> bytes:
    """The event that ends a stream which may use no more, in the provider's own words for errors."""
    message = why.message if isinstance(why, Decision) else why.error.message
    code = why.code.value if isinstance(why, Decision) else why.error.code
    error = {"message": message, "type": code, "code": code, "param": None}
    if provider == "anthropic":
        return b"event: error\ndata: " + encode_json({"type": "error", "error": error}) + b"\n\n"
    if provider == "gemini":
        said = {"code": details(why).status, "message": message, "status": code}  # a number: its clients compare it
        return b"data: " + encode_json({"error": said}) + b"\n\n"
    return b"data: " + encode_json({"error": error}) + b"\n\n"
