"""The metrics of a team's stack: a real Prometheus beside the caches of all nodes of a Swarm."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from talos_registry_cache.cli import dashboard
from tests.integration.support import prometheus, team, team_bed
from tests.integration.support.cachectl import Cachectl
from tests.integration.support.polling import eventually
from tests.integration.support.prometheus import Prometheus
from tests.integration.support.pulling import pulling
from tests.integration.support.team import REGISTRY, Team

SEEN_WITHIN_S = 90

pytestmark = pytest.mark.usefixtures("beds_are_possible")


@dataclass(frozen=True, slots=True)
class Watched:
    """A team's stack, and the Prometheus that collects what its nodes count."""

    team: Team
    written: Path
    prometheus: Prometheus


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("team")
    with (
        team_bed.running(tmp_path_factory.mktemp("bed")) as bed,
        team.running(folder, bed) as made,
    ):
        written = folder / "written"
        cachectl = Cachectl(made.stack.name, folder)
        cachectl.env["DOCKER_HOST"] = bed.manager.engine.host
        ended = cachectl("metrics", "--every", "1", "--output", written)
        assert ended.code == 0, ended.err
        # On a node that manages nothing: what it needs is the network alone.
        beside = bed.hosts[-1]
        with prometheus.running(
            written, made.stack.prefix, beside.address, prometheus.PORT, beside.engine.host
        ) as running:
            yield Watched(made, written, running)


def test_every_node_is_collected_also_after_its_task_was_replaced(watched: Watched) -> None:
    up = watched.prometheus.nodes_up
    wanted = len(watched.team.bed.hosts)

    before = eventually(
        lambda: up() if len(up().get(REGISTRY, ())) == wanted else None,
        within_s=SEEN_WITHIN_S,
        what="all nodes are up",
    )
    assert before == {REGISTRY: _tasks(watched.team)}
    watched.team.docker("service", "update", "--force", "--quiet", watched.team.service_name)

    eventually(
        lambda: up() == {REGISTRY: _tasks(watched.team)} != before,
        within_s=SEEN_WITHIN_S,
        what="the new tasks are up",
    )


def test_the_dashboard_has_numbers_for_all_that_it_shows_of_each_node(watched: Watched) -> None:
    image = watched.team.bed.upstream.push_index()
    first, last = watched.team.bed.hosts[0], watched.team.bed.hosts[-1]
    shown = prometheus.expressions(watched.written / dashboard.FILE, watched.team.stack.name)
    ask = watched.prometheus.query

    pulled = watched.team.pull(first, image)
    watched.team.settled(pulled)
    watched.prometheus.assert_counts_pulls(
        shown, lambda: watched.team.pull(last, image), pulled.size, SEEN_WITHIN_S
    )

    assert len(ask(shown["Served and fetched, by node: {{node}} served"])) >= 2


def test_while_the_store_is_away_errors_are_shown_and_raise_an_alert(watched: Watched) -> None:
    made = watched.team
    image = made.bed.upstream.push_index()
    shown = prometheus.expressions(watched.written / dashboard.FILE, made.stack.name)
    assert watched.prometheus.query(shown["Errors"]) == [0]

    made.bed.store.stop()
    try:
        with pulling(lambda: made.pull(made.bed.manager, image)) as pulls:
            eventually(
                lambda: watched.prometheus.query(shown["Errors"])[0] > 0,
                within_s=SEEN_WITHIN_S,
                what="errors are shown",
            )
            eventually(
                lambda: ("RegistryCacheFails", REGISTRY) in watched.prometheus.alerts(),
                within_s=SEEN_WITHIN_S,
                what="the alert is raised",
            )
    finally:
        made.bed.store.start()

    assert pulls.failures
    by_node = watched.prometheus.query(shown["Errors by upstream and node: {{upstream}} {{node}}"])
    assert sorted(rate > 0 for rate in by_node)[-len(made.bed.hosts) :] == [False, True]


def test_a_node_less_raises_an_alert(watched: Watched) -> None:
    made, alert = watched.team, ("RegistryCacheNodeMissing", REGISTRY)
    node = made.bed.manager.name

    made.docker("node", "update", "--availability", "drain", node)
    try:
        eventually(
            lambda: alert in watched.prometheus.alerts(),
            within_s=SEEN_WITHIN_S,
            what="the alert is raised",
        )
        assert ("RegistryCacheDown", REGISTRY) not in watched.prometheus.alerts()
    finally:
        made.docker("node", "update", "--availability", "active", node)
    eventually(
        lambda: alert not in watched.prometheus.alerts(),
        within_s=SEEN_WITHIN_S,
        what="the alert is taken back",
    )


def _tasks(made: Team) -> set[str]:
    """The addresses of the running tasks in the stack's network, as docs/metrics.md asks it."""
    (network,) = json.loads(made.docker("network", "inspect", "--verbose", made.stack.prefix))
    tasks = network["Services"][made.service_name]["Tasks"]
    assert {task["Info"]["Host IP"] for task in tasks} <= {host.address for host in made.bed.hosts}
    return {task["EndpointIP"] for task in tasks}
