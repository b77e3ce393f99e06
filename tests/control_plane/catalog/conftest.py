"""The admin's command, run on the application under test: the same requests, without a socket between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result

from control_plane.cli.admin import main


class Application(httpx.BaseTransport):
    """Passes requests on to the application."""

    def __init__(self, client: Any) -> None:
        self.client = client

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        target = request.url.raw_path.decode()
        answer = self.client.request(request.method, target, content=request.read(), headers=dict(request.headers))
        kept = {name: value for name, value in answer.headers.items() if name == "content-type"}
        return httpx.Response(answer.status_code, headers=kept, content=answer.content, request=request)


@pytest.fixture
def allotment(client: Any, tokens: Any) -> Callable[..., Result]:
    """Runs `allotment ...` as an admin."""

    def run(*words: str, token: str | None = None, stdin: str | None = None) -> Result:
        def connect(url: str) -> httpx.Client:
            return httpx.Client(base_url=url, transport=Application(client))

        env = {"ALLOTMENT_TOKEN": tokens.admin if token is None else token, "ALLOTMENT_URL": "http://control-plane"}
        return CliRunner().invoke(main, words, obj=connect, env=env, input=stdin)

    return run
