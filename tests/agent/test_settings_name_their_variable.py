"""What an operator may set: every mistake names the variable, shows the value, and says what would be right."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.main import run
from agent.settings import from_environment
from protocol.violations import Violation

GOOD = {"ALLOTMENT_CONTROL_PLANE_URL": "https://allotment.example:8443/", "ALLOTMENT_AGENT_NAME": "host-1"}


def test_defaults_need_only_the_control_plane() -> None:
    settings = from_environment({"ALLOTMENT_CONTROL_PLANE_URL": "https://allotment.example/"})
    assert settings.control_plane_url == "https://allotment.example"
    assert settings.agent_name
    assert (settings.data_dir, settings.socket_dir) == (Path("/var/lib/allotment"), Path("/run/allotment"))
    assert (settings.socket_mode, settings.connections_max, settings.http_port) == (0o660, 16_000, None)
    assert settings.join_token is None
    assert settings.ca_file is None


def test_everything_can_be_set(tmp_path) -> None:
    (tmp_path / "token").write_text("alt_join_x\n")
    settings = from_environment({
        **GOOD,
        "ALLOTMENT_JOIN_TOKEN_FILE": str(tmp_path / "token"),
        "ALLOTMENT_JOIN_TOKEN": "not this one",
        "ALLOTMENT_SOCKET_MODE": "600",
        "ALLOTMENT_HTTP_PORT": "8181",
        "ALLOTMENT_CONNECTIONS_MAX": "7",
        "ALLOTMENT_CA_FILE": str(tmp_path / "token"),
        "ALLOTMENT_DATA_DIR": "/d",
        "ALLOTMENT_SOCKET_DIR": "/s",
    })  # fmt: skip
    assert settings.join_token == "alt_join_x"
    assert (settings.socket_mode, settings.http_port, settings.connections_max) == (0o600, 8181, 7)
    assert (settings.data_dir, settings.socket_dir) == (Path("/d"), Path("/s"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALLOTMENT_CONTROL_PLANE_URL", ""),
        ("ALLOTMENT_CONTROL_PLANE_URL", "allotment.example:8443"),
        ("ALLOTMENT_CONTROL_PLANE_URL", "ftp://allotment.example"),
        ("ALLOTMENT_CONTROL_PLANE_URL", "https://"),
        ("ALLOTMENT_CONTROL_PLANE_URL", "http://[::1"),
        ("ALLOTMENT_CONTROL_PLANE_URL", "http://x:99999"),
        ("ALLOTMENT_CONTROL_PLANE_URL", "http://x:port"),
        ("ALLOTMENT_AGENT_NAME", "host 1"),
        ("ALLOTMENT_AGENT_NAME", "x" * 129),
        ("ALLOTMENT_AGENT_NAME", "host\n"),
        ("ALLOTMENT_SOCKET_MODE", "rw-rw----"),
        ("ALLOTMENT_SOCKET_MODE", "689"),
        ("ALLOTMENT_SOCKET_MODE", "1000"),
        ("ALLOTMENT_SOCKET_MODE", "0"),
        ("ALLOTMENT_SOCKET_MODE", "-1"),
        ("ALLOTMENT_HTTP_PORT", "0"),
        ("ALLOTMENT_HTTP_PORT", "65536"),
        ("ALLOTMENT_HTTP_PORT", "http"),
        ("ALLOTMENT_CONNECTIONS_MAX", "0"),
        ("ALLOTMENT_CONNECTIONS_MAX", "1.5"),
        ("ALLOTMENT_CONNECTIONS_MAX", "100001"),
        ("ALLOTMENT_JOIN_TOKEN_FILE", "/nowhere/token"),
        ("ALLOTMENT_CA_FILE", "/nowhere/ca.pem"),
    ],
)
def test_mistake_names_its_variable_and_what_would_be_right(name, value) -> None:
    with pytest.raises(Violation) as wrong:
        from_environment({**GOOD, name: value})
    assert wrong.value.field == name
    assert wrong.value.message.startswith(f"{name}: ")
    assert wrong.value.expected
    assert value in wrong.value.message or repr(value) in wrong.value.message


def test_join_token_file_that_is_no_text_is_refused_without_showing_it(tmp_path) -> None:
    (tmp_path / "token").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(Violation, match="ALLOTMENT_JOIN_TOKEN_FILE"):
        from_environment({**GOOD, "ALLOTMENT_JOIN_TOKEN_FILE": str(tmp_path / "token")})


def test_empty_join_token_is_none() -> None:
    assert from_environment({**GOOD, "ALLOTMENT_JOIN_TOKEN": ""}).join_token is None


@pytest.mark.parametrize("variable", ["ALLOTMENT_DATA_DIR", "ALLOTMENT_SOCKET_DIR"])
def test_empty_directory_is_the_default_and_never_the_present_one(variable) -> None:
    settings = from_environment({"ALLOTMENT_CONTROL_PLANE_URL": "https://allotment.example", variable: ""})
    assert settings.data_dir.is_absolute()
    assert settings.socket_dir.is_absolute()


@pytest.mark.parametrize("variable", ["ALLOTMENT_DATA_DIR", "ALLOTMENT_SOCKET_DIR"])
def test_directory_that_cannot_be_used_is_named_by_its_variable(variable, tmp_path) -> None:
    (tmp_path / "file").touch()
    names = {"ALLOTMENT_DATA_DIR": "data", "ALLOTMENT_SOCKET_DIR": "sockets", variable: "file/below"}
    settings = from_environment(
        {"ALLOTMENT_CONTROL_PLANE_URL": "https://allotment.example"}
        | {name: str(tmp_path / below) for name, below in names.items()}
    )
    with pytest.raises(Violation, match=f"{variable}: names .*file/below, which cannot be used"):
        run(settings)
