"""A trace that cannot be replayed is refused in one line that names the file, the row, the value and what is right."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from examples.quickstart import workload
from examples.quickstart.settings import Settings

NAMES = "at_ms,input_tokens,output_tokens\n"


def refusal(path: Path) -> str:
    with pytest.raises(SystemExit) as refused:
        workload.load(Settings(path, 80, 4, 2, "", "", 7, True))
    message = str(refused.value)
    assert message.startswith(f"TRACE {path}")
    assert "\n" not in message
    return message


def written(folder: Path, text: str) -> Path:
    path = folder / "trace.csv.gz"
    path.write_bytes(gzip.compress(text.encode()))
    return path


@pytest.mark.parametrize(
    ("row", "wrong"),
    [
        ("5,many,1", "input_tokens is 'many'"),
        ("5,10,-1", "output_tokens is '-1'"),
        ("5.5,10,1", "at_ms is '5.5'"),
        ("5,,1", "input_tokens is missing"),
        ("5,10", "output_tokens is missing"),
        ("5,1000000000001,1", "input_tokens is '1000000000001'"),
    ],
)
def test_wrong_value_is_named_with_its_row(tmp_path: Path, row: str, wrong: str) -> None:
    message = refusal(written(tmp_path, f"{NAMES}0,1,1\n{row}\n9,1,1\n"))
    assert f", row 3 (column names are row 1): {wrong}; expected a whole number from 0" in message


def test_file_without_calls_says_what_belongs_into_it(tmp_path: Path) -> None:
    empty = tmp_path / "empty.csv.gz"
    empty.touch()
    assert "is empty; expected a line of column names (at_ms,input_tokens,output_tokens)" in refusal(empty)
    assert "is empty" in refusal(written(tmp_path, ""))
    assert "has no rows" in refusal(written(tmp_path, NAMES))
    assert "has no column input_tokens, output_tokens" in refusal(written(tmp_path, "at_ms\n1\n"))


def test_damaged_file_cannot_be_read(tmp_path: Path) -> None:
    path = written(tmp_path, NAMES + "".join(f"{number},{number * 7},1\n" for number in range(500)))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "cannot be read: Compressed file ended" in refusal(path)
    path.write_bytes(whole[:20] + b"\xff" * 40 + whole[60:])
    assert "cannot be read" in refusal(path)
    path.write_text(NAMES)
    assert "Not a gzipped file" in refusal(path)
    assert "No such file" in refusal(tmp_path / "absent.csv.gz")


def test_numbers_are_read_in_their_columns(tmp_path: Path) -> None:
    path = written(tmp_path, "output_tokens,at_ms,note,input_tokens\n3,8000,x,2\n")
    (call,) = workload.load(Settings(path, 80, 4, 2, "", "", 7, True))
    assert (call.at_s, call.input_tokens, call.output_tokens) == (0.1, 2, 3)
