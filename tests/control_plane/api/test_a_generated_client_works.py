"""The OpenAPI document is good enough to generate a client from: a public generator makes one, and it is used."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.slow
SETTINGS = {"sizes": [512, 1024], "quality": 0.8, "watermark": None}


@pytest.fixture
def database_url(postgresql_url: str) -> str:
    """One kind of database: what the document says is the same with both."""
    return postgresql_url


@pytest.fixture(scope="module")
def made() -> dict[str, Path]:
    """Where the packages are that were generated, by the document."""
    return {}


@pytest.fixture
def generated(served: Any, made: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of the generated package. The same document is not given to the generator twice."""
    document = httpx.get(f"{served.url}/schema/openapi.json", headers=served.headers).text
    if document not in made:
        generate(document, tmp_path)
        made[document] = tmp_path
    monkeypatch.syspath_prepend(made[document])
    for name in [name for name in sys.modules if name.startswith("made_from_openapi")]:
        monkeypatch.delitem(sys.modules, name)
    return "made_from_openapi"


def generate(document: str, folder: Path) -> None:
    (folder / "openapi.json").write_text(document)
    command = [Path(sys.executable).parent / "openapi-python-client", "generate", "--meta", "none"]
    command += ["--path", "openapi.json", "--output-path", "made_from_openapi"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout
    warned = {line.split("parsing ")[1] for line in done.stdout.splitlines() if line.startswith("WARNING parsing")}
    assert all("agents_uplink" in warning for warning in warned), "only what speaks msgpack is left out"


def test_a_generated_client_subscribes_a_customer_and_reads_what_it_may_use(served: Any, generated: str) -> None:
    def call(tag: str, operation: str, *arguments: Any, **named: Any) -> Any:
        module = importlib.import_module(f"{generated}.api.{tag}.{operation}")
        answer = module.sync_detailed(*arguments, client=client, **named)
        assert answer.status_code == 200, answer
        return answer.parsed

    models = importlib.import_module(f"{generated}.models")
    client = importlib.import_module(f"{generated}.client").AuthenticatedClient(base_url=served.url, token=served.token)
    with client:
        _use(call, models)


def _use(call: Any, models: Any) -> None:
    feature = models.FeatureWrite(name="Chat", kind=models.FeatureKind.METERED)
    call("catalog", "v1_features_declare_feature", "chat", body=feature)
    settings = models.FeatureWrite(name="Settings", kind=models.FeatureKind.STATIC)
    call("catalog", "v1_features_declare_feature", "settings", body=settings)
    limit = models.PlanLimit(key="day", meter="requests", amount=10, window=models.WindowKind.DAY)
    features = [models.PlanFeature(feature="chat"), models.PlanFeature(feature="settings", value=SETTINGS)]
    plan = models.PlanWrite(name="Pro", features=features, limits=[limit])
    assert call("catalog", "v1_plans_publish", "pro", body=plan).version == 1
    call("customers", "v1_customers_put", "acme", body=models.CustomerWrite(name="Acme"))
    wanted = models.SubscriptionWrite(plan="pro", trial_days=14)
    subscription = call("subscriptions", "v1_customers_subscription_put_subscription", "acme", body=wanted)
    assert subscription.status == models.SubscriptionStatus.TRIALING
    found = call("customers", "v1_customers_entitlement_get_entitlement", "acme")
    assert [one.value for one in found.features if one.key == "settings"] == [SETTINGS]
    balances = call("customers", "v1_customers_balances_list_balances", "acme")
    assert [(one.limit, one.remaining) for one in balances.items] == [("day", 10)]
    found = call("explain", "v1_customers_explain_explain", "acme", feature="chat")
    assert found.decision == models.Verdict.ALLOW
