"""Who this agent is to the control plane: its name there and its token, in a private file beside the journal."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import msgspec

from protocol.uplink_messages import EnrollReply

FILE_NAME = "identity.json"


class IdentityDamagedError(Exception):
    """The file that holds this agent's name and token cannot be read."""


def load(data_dir: Path) -> EnrollReply | None:
    """The identity, or ``None`` before enrolment.

    Raises:
        IdentityDamagedError: the file is there but cannot be read.
    """
    try:
        body = (data_dir / FILE_NAME).read_bytes()
    except FileNotFoundError:
        return None
    try:
        return msgspec.json.decode(body, type=EnrollReply)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        path = data_dir / FILE_NAME
        raise IdentityDamagedError(f"{path} is damaged ({error}); remove it, and this agent will enrol anew") from None


def save(data_dir: Path, identity: EnrollReply) -> None:
    """Write it so that a crash leaves the old file or the new one, never half of one."""
    fresh = data_dir / f"{FILE_NAME}.new"
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        body = msgspec.json.encode(identity)
        if os.write(descriptor, body) != len(body):
            raise OSError(errno.ENOSPC, "the disk took only a part of the identity", str(fresh))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    fresh.replace(data_dir / FILE_NAME)
    directory = os.open(data_dir, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
