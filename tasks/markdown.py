"""Markdown that means what its text says, and whose tables can be read as text."""

import re
from collections.abc import Iterator
from itertools import groupby

from tasks.words import visible

# What Markdown (CommonMark, GFM's tables and links, `$` for formulas) takes for its own within a line.
ACTIVE = re.compile(r"[\\`*\[\]<>|~&$]|(?<![0-9A-Za-z])_|_(?![0-9A-Za-z])|:(?=//)|(?<=www)\.", re.IGNORECASE)


class Markdown(str):
    """Text that is Markdown already; all other text is escaped."""

    __slots__ = ()


def escape(value: object) -> object:
    """Make text mean itself in Markdown, on one line and within a table's cell; other values are left as they are.

    Characters that would not be seen, or would reorder the text around them, are spelt out.
    """
    if not isinstance(value, str) or isinstance(value, Markdown):
        return value
    return ACTIVE.sub(r"\\\g<0>", visible(value))


def code(value: object) -> str:
    """Show text, or a value as text, as code, if a table's cell can show it so."""
    shown = visible(str(value))
    return Markdown(escape(str(value))) if re.search(r"[`|]|^\s*$|^\s|\s$", shown) else Markdown(f"`{shown}`")


def align_tables(markdown: str) -> str:
    """Pad the cells of tables, so that they can be read as text; a last column of text is left as it is."""
    lines: list[str] = []
    for is_table, group in groupby(markdown.split("\n"), key=lambda line: line.startswith("|")):
        block = list(group)
        lines += _aligned(block) if is_table else block
    return "\n".join(lines)


def _aligned(lines: list[str]) -> Iterator[str]:
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    rule = rows[1]
    widths = [max(len(row[column]) for row in rows if row is not rule) for column in range(len(rule))]
    to_right = [cell.endswith(":") for cell in rule]
    if not to_right[-1]:
        widths[-1] = 0
    for row in rows:
        cells = [
            (("-" * max(width - right, 2)) + ":" * right if right else "-" * max(width, 3))
            if row is rule
            else (cell.rjust(width) if right else cell.ljust(width))
            for cell, width, right in zip(row, widths, to_right, strict=True)
        ]
        yield f"| {' | '.join(cells)} |"
