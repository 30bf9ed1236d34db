"""Null in JSON, which programs in Go write for an empty value and read as one."""

from collections.abc import Callable

from pydantic import BeforeValidator


def empty_if_null(empty: Callable[[], object]) -> BeforeValidator:
    """Reads null as an empty value, such as `tuple` makes."""
    return BeforeValidator(lambda found: empty() if found is None else found)
