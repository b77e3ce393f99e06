"""What Helm prints after an installation: what is open, and commands that name the objects that were made."""

from __future__ import annotations

import re

import pytest


@pytest.fixture
def notes(chart, values):
    return chart.render(values, name="allotment", namespace="metering")["allotment/templates/NOTES.txt"]


def test_every_object_that_the_commands_name_was_made_or_given(notes, objects):
    made = {(found["kind"].lower(), found["metadata"]["name"]) for found in objects}
    brought = {("secret", name) for name in ("admin-token", "authority", "allotment-tls")}
    named = set(re.findall(r"(statefulset|deployment|daemonset|service|secret)[/ ]([a-z][-a-z]+)", notes))
    assert len(named) >= 3
    assert named - made - brought == set()


def test_plain_http_and_missing_policies_are_said_openly(notes, values):
    assert ("plain HTTP" in notes) == (not values.get("tls", {}).get("enabled", False))
    assert ("networkPolicy.enabled is false" in notes) == (not values.get("networkPolicy", {}).get("enabled", True))


def test_the_address_in_the_notes_is_the_agents(notes, objects):
    specs = [found["spec"]["template"]["spec"] for found in objects if "template" in found.get("spec", {})]
    entries = [e for s in specs for c in s.get("initContainers", []) + s["containers"] for e in c.get("env", [])]
    urls = {entry["value"] for entry in entries if entry["name"] == "ALLOTMENT_CONTROL_PLANE_URL"}
    assert re.findall(r"^Control plane: (\S+)$", notes, re.MULTILINE) == list(urls)


def test_no_token_is_printed(notes):
    assert not re.search(r"alt_(admin|join)_[0-9a-f]", notes)
