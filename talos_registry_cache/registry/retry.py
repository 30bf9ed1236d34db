"""Trying again: what can be, for how long, and after which pause."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

from talos_registry_cache.registry.errors import RegistryError

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Retry:
    """How often and how long to try; all times in seconds.

    The pause before the nth repetition is random, up to `first_pause_s * 2**n` and at most
    `longest_pause_s`, or what the registry asks for where that is longer.

    Attributes:
        tries: how often at most.
        first_pause_s, longest_pause_s: the bounds of a pause.
        patience_s: how long all pauses may be together.
    """

    tries: int = 6
    first_pause_s: float = 0.5
    longest_pause_s: float = 20
    patience_s: float = 120

    def pause_s(self, repetition: int, retry_after_s: float | None) -> float:
        """How long to wait before a repetition, the first of which is 1."""
        longest = min(self.longest_pause_s, self.first_pause_s * 2**repetition)
        # Random, so that many clients that failed together do not come back together.
        own = random.uniform(longest / 2, longest)  # noqa: S311 - no secret depends on it
        return max(own, retry_after_s or 0)


async def retrying(retry: Retry, request: Callable[[], Awaitable[Result]]) -> Result:
    """Make a request until it succeeds, or trying again is of no use.

    Raises:
        RegistryError: that of the last try.
    """
    waited_s = 0.0
    for repetition in range(1, retry.tries):
        try:
            return await request()
        except RegistryError as error:
            if not error.retryable:
                raise
            pause_s = retry.pause_s(repetition, error.retry_after_s)
            if waited_s + pause_s > retry.patience_s:
                raise
        waited_s += pause_s
        await asyncio.sleep(pause_s)
    return await request()


def retry_after_s(header: str | None, now: datetime) -> float | None:
    """Read a Retry-After header: a number of seconds, or an HTTP date (RFC 9110, 10.2.3).

    Args:
        header: its value, if there is one.
        now: the time that a date is compared with, with its time zone.

    Returns:
        Seconds from now, never negative, or None where nothing usable is said.
    """
    if not header:
        return None
    if header.strip().isdecimal():
        return float(header)
    try:
        date = parsedate_to_datetime(header)
        return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - now).total_seconds())
    except (ValueError, OverflowError):
        return None
