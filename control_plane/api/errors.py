"""One table from what went wrong to an RFC 9457 problem, with an OpenAI-style ``error`` object beside it."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException, InternalServerException, ValidationException

from control_plane.api.docs_page import PAGE_PATH
from control_plane.operations.refusals import (
    Busy,
    Conflict,
    Forbidden,
    NotFound,
    Refusal,
    Stale,
    Unauthenticated,
    Unprocessable,
)
from control_plane.store.database import DatabaseUnavailable
from protocol.codec import as_violation
from protocol.ids import KEY_PATTERN, KEY_WORDS
from protocol.violations import Violation

BUSY_S = 5
"""When to come again; agents add up to as much at random, so that they do not come together."""

PROBLEM_JSON = "application/problem+json"

_logger = logging.getLogger("allotment.api")

_REFUSALS: dict[type[Refusal], int] = {
    Unauthenticated: 401,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    Stale: 412,
    Unprocessable: 422,
    Busy: 503,
}
_CODES = {
    400: "invalid_request",
    401: "unauthenticated",
    403: "forbidden",
    404: "route_not_found",
    405: "method_not_allowed",
    413: "body_too_large",
    415: "content_type_not_supported",
}
_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 409: "conflict_error"}


class OpenAIError(msgspec.Struct, frozen=True):
    """The same, for clients that expect the errors of OpenAI's API."""

    message: str
    type: str
    code: str
    param: str | None


class Problem(msgspec.Struct, frozen=True):
    """RFC 9457 problem details.

    Attributes:
        code: stable and machine-readable; ``field`` is the path of the offending field or parameter, if it was one.
    """

    title: str
    status: int
    detail: str
    code: str
    field: str | None
    error: OpenAIError
    type: str = "about:blank"


def problem(
    status: int, code: str, detail: str, field: str = "", headers: dict[str, str] | None = None
) -> Response[Problem]:
    """An error response."""
    kind = _TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
    body = Problem(
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        code=code,
        field=field or None,
        error=OpenAIError(detail, kind, code, field or None),
    )
    return Response(body, status_code=status, media_type=PROBLEM_JSON, headers=headers)


def _violation(_: Request[Any, Any, Any], error: Violation) -> Response[Problem]:
    return problem(400, error.code, error.message, error.field)


def _refusal(_: Request[Any, Any, Any], error: Refusal) -> Response[Problem]:
    status = next(status for kind, status in _REFUSALS.items() if isinstance(error, kind))
    # Browsers ask for a password when told so: the documentation page opens with a token as the password.
    headers = {
        401: {"WWW-Authenticate": 'Basic realm="allotment", charset="UTF-8"'},
        503: {"Retry-After": str(BUSY_S)},
    }
    return problem(status, error.code, error.detail, error.field, headers.get(status))


def _unavailable(_: Request[Any, Any, Any], error: DatabaseUnavailable) -> Response[Problem]:
    _logger.warning("database unavailable: %s", error)
    return problem(503, "database_unavailable", f"{error}; try again.".capitalize(), headers={"Retry-After": "1"})


def _parameters(_: Request[Any, Any, Any], error: ValidationException) -> Response[Problem]:
    first = error.extra[0] if isinstance(error.extra, list) and error.extra else {}
    field = str(first.get("key", "")) if isinstance(first, dict) else ""
    said = str(first.get("message", "")) if isinstance(first, dict) else ""
    if field == "data":
        violation = Violation("", "has no body", "a JSON object")
    else:
        found = as_violation(ValueError(said))
        violation = Violation(field, found.problem, KEY_WORDS if KEY_PATTERN[:20] in found.expected else found.expected)
    return problem(400, violation.code, violation.message, violation.field)


_CUT_OFF = "client disconnected prematurely"  # what Litestar says of a peer that died in the middle of its body


def _http(request: Request[Any, Any, Any], error: HTTPException) -> Response[Problem]:
    status = error.status_code
    if isinstance(error, InternalServerException) and error.detail == _CUT_OFF:
        _logger.info("a request was cut off by its sender")
        return problem(400, "request_cut_off", "The request ended before it was whole.")
    if status >= 500:
        _logger.error("unexpected %s", status, exc_info=error)
    methods = _methods(error)
    headers = {"Allow": ", ".join(methods)} if methods else None
    return problem(status, _CODES.get(status, "request_failed"), _said(request, error, methods), headers=headers)


def _methods(error: HTTPException) -> list[str]:
    allowed = next((value for name, value in (error.headers or {}).items() if name.lower() == "allow"), "")
    return sorted(method for method in allowed.split(", ") if method)


def _said(request: Request[Any, Any, Any], error: HTTPException, methods: list[str]) -> str:
    """What is wrong and what would be right, in our own words where the framework's say only the former."""
    match error.status_code:
        case 404:
            return f"There is no such path; the API page at {PAGE_PATH} lists them."
        case 405:
            taken = ", ".join(method for method in methods if method != "OPTIONS")
            return f"This path does not take {request.method[:20]}; it takes {taken}."
        case 413:
            return f"The body is larger than {request.route_handler.resolve_request_max_body_size()} bytes."
        case 415:
            return error.detail  # raised by our own routes, which know what they take
        case status:
            return HTTPStatus(status).description or HTTPStatus(status).phrase


def _unexpected(request: Request[Any, Any, Any], error: Exception) -> Response[Problem]:
    _logger.error("unexpected: %s %s", request.method, request.url.path, exc_info=error)
    return problem(500, "internal_error", "Something went wrong here. It has been logged; trying again may help.")


EXCEPTION_HANDLERS: dict[int | type[Exception], Any] = {
    Violation: _violation,
    Refusal: _refusal,
    DatabaseUnavailable: _unavailable,
    ValidationException: _parameters,
    HTTPException: _http,
    Exception: _unexpected,
}
