"""Files that take the place of others: whole, whoever else writes, and however long their names are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nodes.location import check_folder, replace_file
from pipeline import UserError
from tests.support.graphs import ROOT

WRITER = """
import sys
from pathlib import Path
from nodes.location import replace_file
for _ in range(60):
    replace_file(Path(sys.argv[1]), sys.argv[2].encode() * 1_000_000)
"""


def test_two_who_write_one_file_leave_one_of_theirs(tmp_path: Path):
    path, seen = tmp_path / "out", set()
    command = [sys.executable, "-c", WRITER, str(path)]
    writers = [subprocess.Popen([*command, letter], cwd=ROOT, stderr=subprocess.PIPE, text=True) for letter in "ab"]
    while any(writer.poll() is None for writer in writers):
        if path.exists():
            content = path.read_bytes()
            seen.add((len(content), bytes(set(content))))
    for writer in writers:
        assert writer.communicate()[1] == ""
        assert writer.returncode == 0
    assert seen <= {(1_000_000, b"a"), (1_000_000, b"b")}
    assert [other.name for other in tmp_path.iterdir()] == ["out"]


def test_a_name_may_be_as_long_as_names_can_be(tmp_path: Path):
    path = tmp_path / ("n" * 255)
    replace_file(path, b"1")
    replace_file(path, b"2", sync=True)
    assert path.read_bytes() == b"2"


def test_after_a_failure_the_old_file_stands_alone(tmp_path: Path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        replace_file(tmp_path / "folder", b"new")
    with pytest.raises(FileNotFoundError):
        replace_file(tmp_path / "nowhere" / "file", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_folder_that_lets_nobody_write(tmp_path: Path):
    check_folder(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []
    with pytest.raises(UserError, match="cannot write to the folder /proc: "):
        check_folder(Path("/proc"))
