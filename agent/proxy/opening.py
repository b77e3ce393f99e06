"""Makes the proxy of an agent, from its settings."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import httpx
import msgspec

from agent.core.attribution import decode_owners
from agent.core.estimate import Estimates
from agent.core.fetched import Answers
from agent.proxy.admission import Dispatch
from agent.proxy.forward import Forwarder
from agent.proxy.lines import Lines, one_connection
from agent.proxy.server import Proxy
from agent.proxy.upstreams import DEFAULT_URLS
from agent.settings import ProxySettings
from protocol.violations import Violation


def make_proxy(
    settings: ProxySettings, dispatch: Dispatch, random_id: Callable[[], str], estimates: Estimates, answers: Answers
) -> Proxy:
    """A proxy of this agent; its operations are ``dispatch``. Raises: Violation: by the name of the variable."""
    owners = None
    if settings.keys_file is not None:
        try:
            owners = decode_owners(settings.keys_file.read_bytes())
        except (OSError, UnicodeDecodeError, msgspec.MsgspecError) as error:
            expected = 'JSON such as {"<SHA-256 of a key>": {"customer": "acme", "feature": "chat"}}'
            raise Violation(
                "ALLOTMENT_PROXY_KEYS_FILE", f"names a file that says no owners: {error}", expected
            ) from None
    lines = Lines(partial(one_connection, httpx.create_ssl_context()))
    return Proxy(
        dispatch,
        lambda finish: Forwarder(
            dispatch,
            finish,
            random_id,
            urls={**DEFAULT_URLS, **settings.urls},
            owners=owners,
            feature=settings.feature,
            estimate=settings.estimate,
            lines=lines,
            estimates=estimates,
            answers=answers,
            vendor_headers=settings.vendor_headers,
        ),
    )
