"""Retries of requests."""

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
    """How often and for how long to retry; times are in seconds.

    The pause before the nth retry is random, up to `first_pause_s * 2**n` and at most
    `longest_pause_s`; or the time that the registry asks for, if that is longer.

    Attributes:
        tries: maximum number of tries.
        first_pause_s, longest_pause_s: the bounds of a pause.
        patience_s: maximum of all pauses together, without the time that requests take.
    """

    tries: int = 6
    first_pause_s: float = 0.5
    longest_pause_s: float = 20
    patience_s: float = 120

    def pause_s(self, retry: int, retry_after_s: float | None) -> float:
        """The pause before a retry, in seconds; the first retry is number 1."""
        longest = min(self.longest_pause_s, self.first_pause_s * 2**retry)
        # Random, so that clients that failed together do not retry together.
        own = random.uniform(longest / 2, longest)  # noqa: S311 - not a secret
        return max(own, retry_after_s or 0)


async def retrying(retry: Retry, request: Callable[[], Awaitable[Result]]) -> Result:
    """Send a request, and retry it while its errors are retryable.

    Raises:
        RegistryError: the error of the last try.
    """
    waited_s = 0.0
    for number in range(1, retry.tries):
        try:
            return await request()
        except RegistryError as error:
            if not error.retryable:
                raise
            pause_s = retry.pause_s(number, error.retry_after_s)
            if waited_s + pause_s > retry.patience_s:
                raise
        waited_s += pause_s
        await asyncio.sleep(pause_s)
    return await request()


def retry_after_s(header: str | None, now: datetime) -> float | None:
    """Parse a Retry-After header: a number of seconds, or an HTTP date (RFC 9110, 10.2.3).

    Args:
        header: the value of the header, or None.
        now: the current time, with a time zone.

    Returns:
        Seconds to wait, never negative; None for a missing or invalid header.
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
