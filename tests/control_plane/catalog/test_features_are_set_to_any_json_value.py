"""Static features of any JSON value: through the catalog file, plans, overrides, explain, and back as YAML."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from control_plane.cli.catalog_yaml import read_catalog, write_catalog

CATALOG = """\
features:
  image-settings: {name: Settings of images, kind: static}
plans:
  pro:
    name: Pro
    features:
      - feature: image-settings
        value: {sizes: [512, 1024], quality: 0.8, watermark: null, styles: {photo: true, "08": no}}
        by_role: {intern: {value: [512]}}
"""
VALUE = {"sizes": [512, 1024], "quality": 0.8, "watermark": None, "styles": {"photo": True, "08": "no"}}
texts = st.text(max_size=8) | st.from_regex(r"[-+]?[0-9_.eE+-]{1,8}", fullmatch=True) | st.sampled_from(["no", "~", ""])
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@given(values)
def test_any_value_is_read_from_yaml_as_it_was_written(value: Any) -> None:
    found = read_catalog(write_catalog({"features": value}), "catalog.yaml").get("features")
    assert json.dumps(found, sort_keys=True) == json.dumps(value, sort_keys=True)


def test_a_value_goes_from_the_file_to_the_customer_and_back(admin: Any, allotment: Any, tmp_path: Path) -> None:
    path = tmp_path / "catalog.yaml"
    path.write_text(CATALOG)
    assert allotment("apply", str(path)).exit_code == 0
    assert "0 new, 0 changed, 2 are" in allotment("apply", str(path)).output
    admin.put("/v1/customers/acme", {"name": "Acme"})
    admin.put("/v1/customers/acme/subscription", {"plan": "pro"})
    (feature,) = admin.get("/v1/customers/acme/entitlement")["features"]
    assert (feature["value"], feature["by_role"]) == (VALUE, {"intern": {"value": [512]}})
    said = allotment("explain", "acme", "image-settings").output
    assert 'set to {"sizes": [512, 1024], "quality": 0.8, "watermark": null' in said
    (tmp_path / "exported.yaml").write_text(allotment("export").output)
    assert "0 new, 0 changed, 2 are" in allotment("apply", str(tmp_path / "exported.yaml")).output


def test_an_override_sets_a_value_for_one_customer(admin: Any, allotment: Any, tmp_path: Path) -> None:
    (tmp_path / "catalog.yaml").write_text(CATALOG)
    allotment("apply", str(tmp_path / "catalog.yaml"))
    admin.put("/v1/customers/acme", {"name": "Acme"})
    admin.put("/v1/customers/acme/subscription", {"plan": "pro"})
    wanted = {"feature": "image-settings", "value": {"sizes": [2048], "quality": 1}, "reason": "pilot"}
    made = admin.put("/v1/customers/acme/overrides/pilot", wanted)
    assert made["body"]["value"] == wanted["value"]
    again = {**wanted, "value": {"quality": 1, "sizes": [2048]}}
    assert admin.put("/v1/customers/acme/overrides/pilot", again) == made, "the order in a map says nothing"
    (feature,) = admin.get("/v1/customers/acme/entitlement")["features"]
    assert feature["value"] == wanted["value"]
    deep = {**wanted, "value": {"a": [[[[[[[[1]]]]]]]]}}
    refused = admin("PUT", "/v1/customers/acme/overrides/deep", json=deep)
    assert (refused.status_code, refused.json()["field"]) == (400, "value.a" + "[0]" * 7)


def test_what_is_wrong_is_named_with_its_line(allotment: Any, tmp_path: Path) -> None:
    path = tmp_path / "catalog.yaml"
    path.write_text(CATALOG.replace("quality: 0.8", "quality: 9007199254740993"))
    refused = allotment("apply", str(path))
    assert refused.exit_code == 1
    assert "catalog.yaml:8: plans.pro.features[0].value.quality: is 9007199254740993" in refused.output
    path.write_text(CATALOG.replace("quality: 0.8", "quality: 1.0e999"))
    assert "is no catalog" in allotment("apply", str(path)).output


def test_true_is_not_one(admin: Any) -> None:
    admin.put("/v1/features/beta", {"name": "Beta", "kind": "static"})
    versions = [
        admin.put("/v1/plans/pro", {"name": "Pro", "features": [{"feature": "beta", "value": value}]})["version"]
        for value in (1, True, 1.0, True, {"a": 1, "b": 2}, {"b": 2, "a": 1})
    ]
    assert versions == [1, 2, 3, 4, 5, 5]


def test_the_values_of_a_customer_are_bounded_together(admin: Any) -> None:
    """An agent answers with all of them in one message."""
    names = [f"f{at}" for at in range(17)]
    for name in names:
        admin.put(f"/v1/features/{name}", {"name": name, "kind": "static"})

    def plan(*features: str) -> dict[str, Any]:
        return {"name": "x", "features": [{"feature": name, "value": "x" * 4_000} for name in features]}

    assert admin("PUT", "/v1/plans/all", json=plan(*names)).json()["field"] == "features"
    admin.put("/v1/plans/pro", plan(*names[:16]))
    admin.put("/v1/add-ons/large", plan(names[16]))
    admin.put("/v1/add-ons/small", {"name": "x", "features": [{"feature": names[16], "value": "small"}]})
    admin.put("/v1/customers/acme", {"name": "Acme"})

    def refused(path: str, body: Any) -> str:
        answer = admin("PUT", f"/v1/customers/acme/{path}", json=body)
        assert answer.status_code == 400
        return str(answer.json()["field"])

    assert refused("subscription", {"plan": "pro", "add_ons": [{"add_on": "large"}]}) == "add_ons"
    admin.put("/v1/customers/acme/subscription", {"plan": "pro", "add_ons": [{"add_on": "small"}]})
    override = {"feature": names[0], "value": "y" * 4_000, "reason": "as large as before"}
    admin.put("/v1/customers/acme/overrides/same", override)
    assert refused("overrides/more", {**override, "feature": names[16]}) == "value"
