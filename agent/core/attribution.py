"""Whose call it is: by headers that the application sets, or by the API key that it uses. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Annotated

import msgspec

from protocol.events import Subject
from protocol.ids import TAGS_MAX, Key, Tags, is_model_name
from protocol.local_messages import Call
from protocol.violations import Violation

PREFIX = b"x-allotment-"
"""Headers for us; none of them is passed on."""

_SUBJECTS = ("user", "workspace", "role")
_KEY_HEADERS = (b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key")
_FINGERPRINT_CHARS = 16


class Owner(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose an API key is. What is given here, no header changes."""

    customer: Key
    feature: Key | None = None
    user: Key | None = None
    workspace: Key | None = None
    role: Key | None = None
    tags: Tags = {}


Fingerprint = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
Owners = Mapping[str, Owner]
"""By the SHA-256 of an API key, in hexadecimal: the file that says so need not be a secret."""


def decode_owners(text: bytes) -> dict[str, Owner]:
    """The file of owners. Raises: msgspec.MsgspecError: it is none."""
    return msgspec.json.decode(text, type=dict[Fingerprint, Owner])


def call_of(headers: Mapping[bytes, bytes], model: str | None, owners: Owners | None, feature: str | None) -> Call:
    """The call that a request is about.

    Args:
        headers: names in lower case.
        owners: the API keys that may be used; ``None``: any, and headers say whose call it is.
        feature: what calls are of that do not say.

    Raises: Violation: it is not said, names what may not be a name, or uses a key that nobody owns.
    """
    key = _api_key(headers)
    owner = None
    if owners is not None:
        owner = owners.get(hashlib.sha256(key).hexdigest()) if key else None
        if owner is None:
            problem = "is none that may be used here" if key else "is missing"
            raise Violation("api key", problem, "one that the agent's operator has listed", code="api_key_unknown")
    said = {name: _text(headers, name) for name in ("customer", "feature", *_SUBJECTS)}
    fields = {name: (getattr(owner, name) if owner else None) or value for name, value in said.items()}
    if owner is not None and said["customer"] not in (None, owner.customer):
        raise Violation("x-allotment-customer", "is not whose key this is", "the key's own customer, or no header")
    fields["feature"] = fields["feature"] or feature
    for name in ("customer", "feature"):
        if fields[name] is None:
            raise Violation(f"x-allotment-{name}", "is missing", f"the {name} that this call is of")
    subject = {name: fields[name] for name in _SUBJECTS if fields[name] is not None}
    if key:
        subject["api_key"] = hashlib.sha256(key).hexdigest()[:_FINGERPRINT_CHARS]
    tags = _tags(headers.get(PREFIX + b"tags", b"")) | (dict(owner.tags) if owner else {})
    try:
        return Call(
            customer=msgspec.convert(fields["customer"], Key),
            feature=msgspec.convert(fields["feature"], Key),
            subject=msgspec.convert(subject, Subject),
            tags=msgspec.convert(tags, Tags),
            model=model if model is not None and is_model_name(model) else None,
        )
    except msgspec.ValidationError as error:
        raise Violation(
            "x-allotment-*", f"say what may not be: {error}", "names of letters, digits and . _ -"
        ) from None


def _text(headers: Mapping[bytes, bytes], name: str) -> str | None:
    value = headers.get(PREFIX + name.encode())
    return value.decode("latin-1").strip() if value else None


def _tags(value: bytes) -> dict[str, str]:
    """``team=red, project=apollo``."""
    found: dict[str, str] = {}
    for part in value.decode("latin-1").split(","):
        if part.strip():
            name, _, text = part.partition("=")
            found[name.strip()] = text.strip()
    if len(found) > TAGS_MAX:
        raise Violation("x-allotment-tags", f"are {len(found)}", f"at most {TAGS_MAX}")
    return found


def _api_key(headers: Mapping[bytes, bytes]) -> bytes:
    for name in _KEY_HEADERS:
        value = headers.get(name, b"").strip()
        if value:
            return value[7:].strip() if value[:7].lower() == b"bearer " else value
    return b""
