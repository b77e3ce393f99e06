"""Who asks the program for help learns of every variable that it reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from click.testing import CliRunner

from control_plane.cli.commands import main
from control_plane.settings import from_environment


class Watched(Mapping[str, str]):
    """An empty environment that remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: set[str] = set()

    def __getitem__(self, name: str) -> str:
        self.asked.add(name)
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def test_help_names_every_setting_on_a_line_of_its_own() -> None:
    environment = Watched()
    from_environment(environment)
    assert len(environment.asked) >= 7
    helped = CliRunner().invoke(main, ["--help"], terminal_width=80)
    assert helped.exit_code == 0
    lines = [line.split() for line in helped.output.splitlines()]
    said = {line[0] for line in lines if len(line) > 1 and line[0].startswith("ALLOTMENT_")}
    assert said == environment.asked
    assert max(map(len, helped.output.splitlines())) <= 80
