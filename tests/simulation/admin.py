"""The people who run the control plane: they publish plans, subscribe, pause, archive and revoke, over its real API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import trio

from tests.simulation.contracts import FEATURES, Contract
from tests.simulation.hosts import URL
from tests.simulation.network import Line, SimNet

if TYPE_CHECKING:
    from tests.simulation.world import World


class Admin:
    """One admin, who repeats what was not answered until it is."""

    def __init__(self, world: World, token: str) -> None:
        self._world = world
        line = Line("admin", faulty=False)
        headers = {"authorization": f"Bearer {token}"}
        self._client = httpx.AsyncClient(base_url=URL, headers=headers, transport=SimNet(world.network, line))
        self._changing = trio.Lock()

    async def set_up(self) -> None:
        """The catalog, and every customer on its plan."""
        for feature in FEATURES:
            await self._do("PUT", f"/v1/features/{feature}", {"name": feature, "kind": "metered"})
        for contract in self._world.contracts.of.values():
            await self._do("PUT", f"/v1/customers/{contract.customer}", {"name": contract.customer})
            await self.publish(contract, contract.limits)

    async def publish(self, contract: Contract, limits: list[dict[str, Any]]) -> None:
        """Put a customer on the next version of its plan."""
        async with self._changing:
            customer = contract.customer
            if contract.status != "active":
                return
            before = self._world.taken(customer)
            self._world.contracts.about_to_publish(customer, limits)
            body = {"name": customer, "features": [{"feature": feature} for feature in FEATURES], "limits": limits}
            version = (await self._do("PUT", f"/v1/plans/plan-{customer}", body))["version"]
            wanted = {"plan": f"plan-{customer}", "version": version}
            await self._do("PUT", f"/v1/customers/{customer}/subscription", wanted)
            contract.version = version
            if any(before.values()):
                self._world.chronicle.happened("plan change", "allowances in use")
            self._world.contracts.published(customer, limits, self._world.taken(customer))

    async def set_status(self, contract: Contract, status: str) -> None:
        """Pause, cancel, archive, or bring back."""
        async with self._changing:
            customer = contract.customer
            path = f"/v1/customers/{customer}"
            wanted = {"plan": f"plan-{customer}", "version": contract.version}
            if status == "paused":
                await self._do("PUT", f"{path}/subscription", {**wanted, "status": "paused"})
            elif status == "cancelled":
                await self._do("DELETE", f"{path}/subscription", None)
            elif status == "archived":
                await self._do("DELETE", path, None)
            else:
                await self._do("PUT", path, {"name": customer})
                await self._do("PUT", f"{path}/subscription", wanted)
            if any(self._world.taken(customer).values()):
                self._world.chronicle.happened(f"customer {status}", "allowances in use")
            contract.status = status

    async def revoke(self, agent: str) -> None:
        """An agent is trusted no longer."""
        await self._do("DELETE", f"/v1/agents/{agent}", None)

    async def _do(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        while True:
            try:
                answer = await self._client.request(method, path, json=body)
            except httpx.HTTPError:
                await trio.sleep(0.5)
                continue
            if answer.status_code < 300:
                found: dict[str, Any] = answer.json()
                return found
            if answer.status_code < 500:
                self._world.chronicle.breach("admins are served", f"{method} {path}: {answer.text}")
            await trio.sleep(0.5)
