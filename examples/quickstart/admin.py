"""What an admin does over the control plane's API: load a catalog, subscribe customers, read the books."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx

from examples.quickstart.settings import HERE


class Admin:
    """The API, with an admin's token."""

    def __init__(self, url: str, token: str) -> None:
        self._client = httpx.Client(base_url=url, headers={"authorization": f"Bearer {token}"}, timeout=30)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def load_catalog(self) -> None:
        """Meters, features and plans of ``catalog.json``."""
        catalog = json.loads((HERE / "catalog.json").read_text())
        for kind in ("meters", "features", "plans"):
            for key, body in catalog[kind].items():
                self._put(f"/v1/{kind}/{key}", body)

    def subscribe(self, customer: str, plan: str) -> None:
        """Create the customer, on the newest version of the plan."""
        self._put(f"/v1/customers/{customer}", {"name": customer})
        self._put(f"/v1/customers/{customer}/subscription", {"plan": plan})

    def usage(self, customer: str) -> dict[str, int]:
        """What the ledger holds, by meter."""
        found = self._get(f"/v1/customers/{customer}/usage")
        return {item["meter"]: item["quantity"] for item in found["items"]}

    def balances(self, customer: str) -> Iterator[dict[str, Any]]:
        """How the customer's limits stand, each user's for limits that are kept by user."""
        yield from self._pages(f"/v1/customers/{customer}/balances")

    def events(self, customer: str) -> Iterator[dict[str, Any]]:
        """Every event in the ledger."""
        yield from self._pages(f"/v1/customers/{customer}/events")

    def conflicts(self) -> list[dict[str, Any]]:
        """Events that could not be accepted."""
        return list(self._pages("/v1/event-conflicts"))

    def _pages(self, path: str) -> Iterator[dict[str, Any]]:
        cursor = None
        while True:
            page = self._get(path, limit=1000, **({"cursor": cursor} if cursor else {}))
            yield from page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def _get(self, path: str, **query: Any) -> Any:
        return self._read(self._client.get(path, params=query))

    def _put(self, path: str, body: dict[str, Any]) -> Any:
        return self._read(self._client.put(path, json=body))

    def _read(self, answer: httpx.Response) -> Any:
        if answer.is_error:
            raise SystemExit(f"{answer.request.method} {answer.request.url.path}: {answer.status_code} {answer.text}")
        return answer.json()
