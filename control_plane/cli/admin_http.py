"""How the admin's command speaks with the control plane: over HTTP with a token, and errors as people read them."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import httpx
from rich.console import Console
from rich.table import Table
from rich.text import Text

from control_plane.core.tokens import parse
from protocol.ids import KEY_WORDS, is_key

DEFAULT_URL = "http://127.0.0.1:8080"
TIMEOUT_S = 120
PAGE = 1_000
WIDTH_WITHOUT_TERMINAL = 160


class ApiProblem(click.ClickException):
    """The API refused. ``field``: what the trouble is about; of a catalog file its path in there."""

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True)
class Desk:
    """What a command works with: the API, and how its answers are to be shown."""

    client: httpx.Client
    token: str
    as_json: bool

    def get(self, path: str, **query: Any) -> Any:
        """Raises: ApiProblem."""
        return self._ask("GET", path, query, None)

    def put(self, path: str, body: object, **query: Any) -> Any:
        """Raises: ApiProblem."""
        return self._ask("PUT", path, query, body)

    def post(self, path: str, body: object) -> Any:
        """Raises: ApiProblem."""
        return self._ask("POST", path, {}, body)

    def pages(self, path: str, **query: Any) -> Iterator[Any]:
        """The items of every page. Raises: ApiProblem."""
        cursor = None
        while True:
            page = self.get(path, limit=PAGE, cursor=cursor, **query)
            yield from page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def show(self, answer: object, draw: Callable[[Console], None]) -> None:
        """The answer as JSON where that is wanted, else what ``draw`` makes of it."""
        if self.as_json:
            click.echo(json.dumps(answer, indent=2, ensure_ascii=False))
            return
        draw(Console(width=None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL))

    def _ask(self, method: str, path: str, query: dict[str, Any], body: object) -> Any:
        given = {name: value for name, value in query.items() if value is not None}
        headers = {"Authorization": f"Bearer {self.token}"}
        try:
            answer = self.client.request(method, path, params=given, headers=headers, json=body)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            said = str(error) or type(error).__name__
            raise ApiProblem(f"{self.client.base_url} cannot be reached: {said}. Say --url or ALLOTMENT_URL.") from None
        if answer.is_success:
            return answer.json()
        raise _problem(answer)


def _problem(answer: httpx.Response) -> ApiProblem:
    try:
        told = answer.json()
        detail, field = str(told["detail"]), str(told.get("field") or "")
    except (ValueError, KeyError, TypeError, AttributeError):
        return ApiProblem(f"{answer.request.url} answered {answer.status_code}, and not as a control plane does.")
    return ApiProblem(detail if not field or detail.startswith(field) else f"{field}: {detail}", field)


def speaks(command: Callable[..., None]) -> Callable[..., None]:
    """A command that gets a :class:`Desk`, and the options that say whom it speaks with."""

    @click.option("--url", envvar="ALLOTMENT_URL", default=DEFAULT_URL, show_default=True, show_envvar=True,
                  help="The control plane.")  # fmt: skip
    @click.option("--token-file", envvar="ALLOTMENT_TOKEN_FILE", show_envvar=True,
                  type=click.Path(exists=True, dir_okay=False, path_type=Path),
                  help="Holds your token; else ALLOTMENT_TOKEN does.")  # fmt: skip
    @click.option("--json", "as_json", is_flag=True, help="The API's answer, for machines.")
    @click.pass_context
    @functools.wraps(command)
    def with_desk(
        context: click.Context, /, *words: Any, url: str, token_file: Path | None, as_json: bool, **named: Any
    ) -> None:
        connect = context.obj or _connect
        client = connect(url)
        try:
            command(Desk(client, _token(token_file), as_json), *words, **named)
        finally:
            client.close()

    return with_desk


def _connect(url: str) -> httpx.Client:
    try:
        return httpx.Client(base_url=url, timeout=TIMEOUT_S)
    except (httpx.InvalidURL, ValueError):
        raise click.BadParameter("expected a URL, as https://allotment.example", param_hint="--url") from None


def _token(token_file: Path | None) -> str:
    text = (os.environ.get("ALLOTMENT_TOKEN", "") if token_file is None else token_file.read_text()).strip()
    if not text:
        raise click.ClickException(
            "There is no token: set ALLOTMENT_TOKEN, or say --token-file. An operator makes one with"
            " `allotment-control-plane create-token --role admin --name you`."
        )
    if parse(text) is None:
        raise click.ClickException("What was given as a token is none: expected alt_admin_... or alt_support_...")
    return text


def is_name(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """For click: an id that may stand in a path. Raises: BadParameter."""
    if value is not None and not is_key(value):
        raise click.BadParameter(f"expected {KEY_WORDS}", ctx=context, param=parameter)
    return value


def table(*heads: str, title: str | None = None) -> Table:
    """An empty table, whose cells are never cut short."""
    made = Table(title=title, title_justify="left")
    for head in heads:
        made.add_column(head, overflow="fold")
    return made


def filled(heads: Sequence[str], rows: Sequence[Sequence[object]], sparse: Sequence[str], title: str = "") -> Table:
    """A table of these rows.

    Args:
        sparse: columns that are left out where no row has anything in them but 0.
    """
    shown = [
        at for at, head in enumerate(heads) if head not in sparse or any(row[at] not in {0, None, ""} for row in rows)
    ]
    made = table(*(heads[at] for at in shown), title=title or None)
    for row in rows:
        made.add_row(*cells(*(row[at] for at in shown)))
    return made


def moment(text: str | None) -> str:
    """An instant to the minute; nothing where a window never ends."""
    return "" if text is None or text >= "2199" else f"{text[:10]} {text[11:16]}Z"


def counted(count: int, noun: str) -> str:
    """``1 customer``, ``2 customers``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def cells(*values: object) -> list[Text]:
    """One row: numbers with their thousands, nothing for ``None``, and no text taken for markup."""
    return [Text(_shown(value)) for value in values]


def _shown(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case str():
            return value
        case _:
            return json.dumps(value, ensure_ascii=False)
