"""Addresses of the caches that the machine does not have: refused clearly, and healed later."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pulumi.automation import CommandError

from tests.integration.support import private_engine, processes
from tests.integration.support.cachectl import Cachectl
from tests.integration.support.polling import eventually
from tests.integration.support.private_engine import PrivateEngine
from tests.integration.support.stack import CacheStack, stack, upstreams

REGISTRY = "docker.io"
NOBODY = "http://192.0.2.1:5000"
DEVICE, ADDRESS = "lan0", "10.213.0.1"
WITHIN_S = 60


@dataclass(frozen=True, slots=True)
class Site:
    """A private engine on a machine with an address in a LAN, and a stack that is not up yet."""

    engine: PrivateEngine
    stack: CacheStack
    cachectl: Cachectl

    def ip(self, *arguments: str) -> None:
        """Change the devices and addresses of the machine."""
        processes.run(*self.engine.enter, "ip", *arguments)


@contextmanager
def running(folder: Path, *options: str, **settings: Any) -> Iterator[Site]:
    """A site.

    Args:
        folder: the directory of its files.
        options: more options of dockerd.
        settings: settings of the caches.
    """
    if reason := private_engine.why_impossible():
        pytest.skip(reason)
    caches = {"upstreams": upstreams(NOBODY, REGISTRY), **settings}
    with (
        private_engine.running(folder, options) as engine,
        engine.client() as client,
        stack(
            folder / "stacks", client, caches, engine_host=engine.host, enter=engine.machine
        ) as made,
    ):
        cachectl = Cachectl(made.name, folder, engine.machine, engine_host=engine.host)
        site = Site(engine, made, cachectl)
        site.ip("link", "add", DEVICE, "type", "bridge")
        site.ip("link", "set", DEVICE, "up")
        site.ip("address", "add", f"{ADDRESS}/24", "dev", DEVICE)
        yield site


def test_an_address_that_disappears_is_refused_and_caches_heal_when_it_is_back(
    tmp_path: Path,
) -> None:
    with running(tmp_path, mirrorHost=ADDRESS) as site:
        site.stack.up()
        assert site.cachectl("status").code == 0

        # As after a reboot, before the address is there.
        site.engine.stop()
        site.ip("address", "delete", f"{ADDRESS}/24", "dev", DEVICE)
        site.engine.start()
        eventually(
            lambda: site.cachectl("status").code == 3,
            within_s=WITHIN_S,
            what="`status` shows that the cache does not run",
        )
        with pytest.raises(CommandError, match=rf"mirrorHost: found {ADDRESS}, .* not have now"):
            site.stack.up()

        site.ip("address", "add", f"{ADDRESS}/24", "dev", DEVICE)
        site.stack.up()
        assert site.stack.healthy() == {REGISTRY}
        assert site.cachectl("status").code == 0


def test_status_shows_an_address_that_disappears_while_the_caches_run(tmp_path: Path) -> None:
    with running(tmp_path, mirrorHost=ADDRESS) as site:
        site.stack.up()

        site.ip("address", "delete", f"{ADDRESS}/24", "dev", DEVICE)
        assert site.cachectl("status", "--json").result[REGISTRY]["mirrorReachable"] is False

        site.ip("address", "add", f"{ADDRESS}/24", "dev", DEVICE)
        assert site.cachectl("status", "--json").result[REGISTRY]["mirrorReachable"] is True
        assert set(site.stack.up()) == {"same"}


def test_a_bridge_without_its_address_is_refused(tmp_path: Path) -> None:
    with running(tmp_path) as site:
        site.ip("address", "flush", "dev", "docker0")

        with pytest.raises(CommandError) as failed:
            site.stack.up()
        assert re.search(r"found auto .* bridge should have 172\.17\.0\.1", str(failed.value))
        assert site.stack.ids() == {}


def test_an_engine_without_a_bridge_needs_an_address_in_the_settings(tmp_path: Path) -> None:
    with running(tmp_path, "--bridge=none") as site:
        with pytest.raises(CommandError, match=r"mirrorHost: found auto .* has no default bridge"):
            site.stack.up()
        assert site.stack.ids() == {}

        site.stack.configure({**site.stack.settings(), "mirrorHost": ADDRESS})
        site.stack.up()
        assert site.stack.healthy() == {REGISTRY}
        assert site.cachectl("status").code == 0
