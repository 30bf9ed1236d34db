"""The files in monitoring/, loaded by a real Prometheus on a manager of a Swarm."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.integration.support import prometheus, team, team_bed
from tests.integration.support.polling import eventually
from tests.integration.support.prometheus import Prometheus
from tests.integration.support.pulling import pulling
from tests.integration.support.team import REGISTRY, Team

SEEN_WITHIN_S = 90

pytestmark = pytest.mark.usefixtures("beds_are_possible")


@dataclass(frozen=True, slots=True)
class Watched:
    """A team's stack, and the Prometheus that monitors it."""

    team: Team
    prometheus: Prometheus


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("team")
    with (
        team_bed.running(tmp_path_factory.mktemp("bed")) as bed,
        # Without fronts, which answer repeated pulls by themselves.
        team.running(folder, bed, placement={**team.PLACEMENT, "replicas": len(bed.hosts)}) as made,
    ):
        files = folder / "monitoring"
        files.mkdir()
        manager = bed.manager
        with prometheus.running(
            files,
            "prometheus-swarm.yml",
            made.stack,
            address=manager.address,
            port=prometheus.PORT,
            engine_host=manager.engine.host,
        ) as running:
            yield Watched(made, running)


def test_every_node_is_discovered_again_after_its_task_was_replaced(watched: Watched) -> None:
    made, up = watched.team, watched.prometheus.up
    nodes = {(REGISTRY, host.name) for host in made.bed.hosts}

    eventually(lambda: up().keys() == nodes, within_s=SEEN_WITHIN_S, what="all nodes are up")
    before = up()
    made.docker("service", "update", "--force", "--quiet", made.fronts)

    eventually(
        lambda: up().keys() == nodes and not set(up().values()) & set(before.values()),
        within_s=SEEN_WITHIN_S,
        what="the new tasks are up",
    )


def test_the_dashboard_shows_the_right_numbers_for_each_node(watched: Watched) -> None:
    image = watched.team.bed.upstream.push_index()
    first, last = watched.team.bed.hosts[0], watched.team.bed.hosts[-1]
    shown = prometheus.dashboard(watched.team.stack.name)
    ask = watched.prometheus.query

    pulled = watched.team.pull(first, image)
    watched.team.settled(pulled)
    watched.prometheus.assert_counts_pulls(
        shown, lambda: watched.team.pull(last, image), pulled.size, SEEN_WITHIN_S
    )

    assert len(ask(shown["Traffic by node: {{node}} served"])) >= 2


def test_errors_of_the_store_are_shown_and_raise_an_alert(watched: Watched) -> None:
    made = watched.team
    image = made.bed.upstream.push_index()
    shown = prometheus.dashboard(made.stack.name)
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


def test_a_missing_node_raises_an_alert(watched: Watched) -> None:
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
        what="the alert is resolved",
    )


def test_with_fronts_each_node_is_one_target(watched: Watched) -> None:
    made, ask = watched.team, watched.prometheus
    nodes = {(REGISTRY, host.name) for host in made.bed.hosts}
    eventually(lambda: ask.up().keys() == nodes, within_s=SEEN_WITHIN_S, what="all nodes are up")
    before = set(ask.up().values())
    made.stack.configure({**made.stack.settings(), "placement": team.PLACEMENT})

    made.stack.up()

    every = f'up{{stack="{made.stack.name}"}}'
    eventually(
        lambda: (
            ask.up().keys() == nodes
            and not set(ask.up().values()) & before
            # Targets of tasks that have ended are forgotten a moment later.
            and len(ask.query(every)) == len(nodes)
        ),
        within_s=SEEN_WITHIN_S,
        what="the registries are up, and no other target is left",
    )
