"""How long to wait before the next attempt."""

from __future__ import annotations

import random
from dataclasses import dataclass

# Waits are spread by this share, so that many clients do not come back in one instant.
JITTER = 0.25


@dataclass(frozen=True)
class Retry:
    """When to try again after a loss.

    Args:
        first_seconds: before the first attempt. Later ones wait twice as long each,
        later_seconds: up to so long.
        attempts: in a row, after which it is given up; 0: never.
    """

    first_seconds: float = 0.5
    later_seconds: float = 15.0
    attempts: int = 0


class Backoff:
    """The waits of one connection."""

    def __init__(self, retry: Retry) -> None:
        self.retry = retry
        self.failures = 0

    def reset(self) -> None:
        """It works again."""
        self.failures = 0

    def wait_seconds(self) -> float | None:
        """Seconds until the next attempt, or None: no more of them."""
        self.failures += 1
        retry = self.retry
        if retry.attempts and self.failures > retry.attempts:
            return None
        # Limited before it is a float: a week of failures is a number with a hundred thousand digits.
        doubled = retry.first_seconds * 2.0 ** min(self.failures - 1, 32)
        return min(max(retry.later_seconds, retry.first_seconds), doubled) * random.uniform(
            1 - JITTER, 1 + JITTER
        )
