"""The settings of the mirror for all registries."""

from pydantic import Field

from .model import Model
from .values import Port


class Wildcard(Model):
    """One more mirror, for all upstreams at one URL.

    It finds the cache by the registry host that container runtimes send to a mirror (`?ns=`).
    """

    port: Port = Field(default=5009, description="Port on this machine")
