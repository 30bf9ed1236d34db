"""What tests take out of parsed settings."""

from components.settings import Caches, StackSettings


def caches_of(parsed: StackSettings) -> Caches:
    """The caches of a stack that has some."""
    assert parsed.caches is not None
    return parsed.caches
