"""Numbers of bytes, as people read them."""

KILO = 1000
UNITS = ("B", "kB", "MB", "GB", "TB")


def text(number: int) -> str:
    """Format a number of bytes, such as 1.2 MB."""
    value, unit = float(number), 0
    while round(value, 1) >= KILO and unit < len(UNITS) - 1:
        value, unit = value / KILO, unit + 1
    return f"{value:.1f} {UNITS[unit]}" if unit else f"{number} B"
