"""Comma-separated values that a spreadsheet takes for what they are: text stays text, numbers stay numbers.

A cell that begins with ``=``, ``+``, ``-``, ``@``, a tab or a line end is a formula to a spreadsheet, and volumes are named by strangers.
An apostrophe before it makes it text (OWASP, "CSV injection"). ``plain_cell`` takes the apostrophe off again.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["csv_of", "plain_cell"]

_NUMBER = r"[-+−]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?%?"
# A number alone, or with the spread or the interval that tables put after it; and the words that Python has for others.
_NUMERIC = re.compile(rf"{_NUMBER}(?: ± {_NUMBER}|[ \n]\[{_NUMBER}, {_NUMBER}\])?|[-+]?(?:inf|nan)")
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_MARK = "'"
_QUOTE = '"'
_TO_QUOTE = set(',"\r\n')


def csv_of(rows: Iterable[Sequence[Any]]) -> str:
    """Return rows as comma-separated values, lines ended by a line feed; what would be a formula is marked as text."""
    return "".join(f"{_line([_cell(value) for value in row])}\n" for row in rows)


def plain_cell(cell: str) -> str:
    """Return what ``csv_of`` was given for a cell of text."""
    return cell[1:] if cell.startswith(_MARK) and cell.lstrip(_MARK).startswith(_FORMULA) else cell


def _cell(value: Any) -> str:
    if not isinstance(value, str):
        return "" if value is None else str(value)
    return f"{_MARK}{value}" if value.lstrip(_MARK).startswith(_FORMULA) and not _NUMERIC.fullmatch(value) else value


def _line(cells: Sequence[str]) -> str:
    """Join cells as RFC 4180 has it. Python's own writer leaves a carriage return bare, which ends the line for whoever reads it."""
    quoted = (f'"{cell.replace(_QUOTE, 2 * _QUOTE)}"' if _TO_QUOTE & set(cell) else cell for cell in cells)
    return '""' if list(cells) == [""] else ",".join(quoted)
