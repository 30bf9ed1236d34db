from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from talos_registry_cache.registry.retry import Retry, retry_after_s

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("7", 7),
        (" 120 ", 120),
        ("Thu, 01 Jan 2026 12:00:30 GMT", 30),
        ("Thu, 01 Jan 2026 11:59:00 GMT", 0),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("nan", None),
    ],
)
def test_retry_after_is_a_number_of_seconds_or_a_date(
    header: str | None, seconds: float | None
) -> None:
    assert retry_after_s(header, NOW) == seconds


@given(st.integers(1, 40), st.none() | st.floats(0, 1e6))
def test_a_pause_is_bounded_and_at_least_as_long_as_asked_for(
    number: int, asked_s: float | None
) -> None:
    retry = Retry(first_pause_s=0.5, longest_pause_s=20)

    pause_s = retry.pause_s(number, asked_s)

    assert 0.5 <= pause_s <= max(20, asked_s or 0)
    assert pause_s >= (asked_s or 0)


def test_pauses_grow() -> None:
    retry = Retry(first_pause_s=1, longest_pause_s=1000)

    assert retry.pause_s(1, None) <= 2 <= retry.pause_s(2, None) <= 4 <= retry.pause_s(3, None)
