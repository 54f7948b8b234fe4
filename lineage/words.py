"""Amounts and names as people read them."""

from collections.abc import Sequence


def size(amount: int) -> str:
    """Return bytes in words, in decimal units as disks and DVC have them: `9.7 MB`."""
    value = float(amount)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5 or unit == "GB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" or value >= 99.95 else f"{value:.1f} {unit}"


def first_of(names: Sequence[str], most: int) -> str:
    """Return names with commas between them, and how many more there are than `most`."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more:,} more" if more > 0 else "")
