"""csv files by pandas, and each mistake in them with its own line: blank lines, quotes and all.

pandas reads ten thousand long rows in a second, but does not say in which line a row stands. So where it stumbles, or
rows and lines do not go together, the file is read once more, row by row. Compressed files (.gz, .bz2, .xz, a .zip of
one file) are read as they are; archives of several files are not.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import pandas as pd

from pipeline.errors import UserError

_COMPRESSED = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_OTHER_ARCHIVES = {"tar", "tgz", "tbz", "txz", "zst", "7z", "rar"}
_UNPACK = "unpack it and give the csv itself"


def rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """(line, the fields of `columns`, in that order, stripped) of each row; blank lines are no rows.

    A row may have more fields than the head only if they are empty. Raises UserError, naming file and line, for a
    file that cannot be read, lacks a column, has a row of too few or too many fields, or a quote without its end.
    """
    found = _by_pandas(path)
    if found is None or not set(columns) <= set(found.columns):
        yield from _row_by_row(path, columns)
        return
    for row, fields in enumerate(zip(*(found[column] for column in columns), strict=True)):
        yield row + 2, [field.strip() for field in fields]


def _by_pandas(path: Path) -> pd.DataFrame | None:
    """All fields as text, where row n stands in line n + 2; None for any file that is not as plain as that."""
    with _opened(path) as file, warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)  # of rows that are longer than the head
        try:
            table = pd.read_csv(
                file, dtype=str, keep_default_na=False, na_values=[""], skip_blank_lines=False, index_col=False,
                skipinitialspace=True,
            )  # fmt: skip
        except (pd.errors.ParserError, pd.errors.EmptyDataError, pd.errors.ParserWarning) as error:
            # An exception without a value is lost on its way through pandas; a Ctrl-C has none before Python 3.12.
            if "on source failed" in str(error):
                raise KeyboardInterrupt from None
            return None
    table.columns = table.columns.str.strip()
    plain = (
        table.columns.is_unique and not table.isna().to_numpy().any()
    )  # NaN: an empty field, a blank line, a row cut off
    if not plain or any("\n" in field for name in table for field in table[name]):
        return None
    return table


def _row_by_row(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    with _opened(path) as file:
        # Strict: else a quote that is never closed swallows the rest of the file in silence.
        table = csv.reader(file, strict=True, skipinitialspace=True)
        places: list[int] = []
        head: list[str] = []
        begin = 1
        try:
            for fields in table:
                line, begin = begin, table.line_num + 1
                if not any(map(str.strip, fields)):
                    continue
                if not head:
                    head = [field.strip() for field in fields]
                    places = _places(path, head, columns)
                    continue
                if len(fields) < len(head):
                    raise UserError(f"{path}:{line}: {len(fields)} fields in place of {len(head)}: the row is cut off")
                if any(map(str.strip, fields[len(head) :])):
                    raise UserError(f"{path}:{line}: {len(fields)} fields in place of {len(head)}")
                yield line, [fields[place].strip() for place in places]
        except csv.Error as error:
            # The other one is a field that grows beyond csv's limit, since its quote goes on and on.
            if "unexpected end of data" in str(error) or "field limit" in str(error):
                raise UserError(f"{path}:{begin}: a quote is opened and never closed (is the file cut off?)") from error
            raise UserError(f"{path}:{table.line_num}: {error}") from error
        if not head:
            raise UserError(f"{path} is empty")


def _places(path: Path, head: list[str], columns: Sequence[str]) -> list[int]:
    missing = [column for column in columns if column not in head]
    if missing:
        raise UserError(
            f"{path} has no column {', '.join(missing)}: it must have {', '.join(columns)}, "
            f"and its first line is {', '.join(head)[:60]}"
        )
    return [head.index(column) for column in columns]


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    """The text of a file, unpacked; what goes wrong at any time while it is read is one line."""
    suffix = path.suffix.lower()
    try:
        if not _OTHER_ARCHIVES.isdisjoint(path.name.lower().split(".")[-2:]):
            raise UserError(f"{path} is an archive: {_UNPACK}")
        if suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
                if len(names) != 1:
                    raise UserError(f"{path} is an archive of {len(names)} files: {_UNPACK}")
                with io.TextIOWrapper(archive.open(names[0]), "utf-8-sig", newline="") as file:
                    yield file
        else:
            with _COMPRESSED.get(suffix, open)(path, "rt", encoding="utf-8-sig", newline="") as file:
                yield file
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a csv: it is not text in UTF-8 ({error.reason})") from error
    except (EOFError, OSError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, RuntimeError) as error:
        if suffix == ".zip" or suffix in _COMPRESSED:
            raise UserError(f"{path} cannot be unpacked ({error}): {_UNPACK}") from error
        if isinstance(error, OSError):
            raise UserError(f"cannot read {path}: {error.strerror or error}") from error
        raise
