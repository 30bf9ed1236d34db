"""What tests take out of parsed settings."""

from components.settings import Caches, StackSettings
from components.settings.storage import VolumeStorage


def caches_of(parsed: StackSettings) -> Caches:
    """The caches of a stack that has some."""
    assert parsed.caches is not None
    return parsed.caches


def volume_storage_of(parsed: StackSettings) -> VolumeStorage:
    """The storage of a stack that keeps what it has cached in volumes."""
    storage = caches_of(parsed).storage
    assert isinstance(storage, VolumeStorage)
    return storage
