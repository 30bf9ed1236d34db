import yaml

from components import placement
from talos_registry_cache.cli import node_metrics, prometheus
from talos_registry_cache.cli.prometheus import Targets

ON_ENGINE = Targets("dev", {"docker.io": "registry-dev-docker.io"}, {}, "workstation")
ON_SWARM = Targets("team", {}, {"docker.io": "registry-team-docker-io"}, "manager")


def test_the_port_is_where_caches_count() -> None:
    assert node_metrics.PORT == placement.METRICS_PORT


def test_a_container_is_asked_by_its_name_on_the_engine_that_runs_it() -> None:
    (job,) = yaml.safe_load(prometheus.configuration(ON_ENGINE, 15))["scrape_configs"]

    assert job == {
        "job_name": "registry-dev-docker.io",
        "static_configs": [
            {
                "targets": ["registry-dev-docker.io:5001"],
                "labels": {"stack": "dev", "upstream": "docker.io", "node": "workstation"},
            }
        ],
    }


def test_a_service_is_asked_on_every_node_that_runs_it() -> None:
    (job,) = yaml.safe_load(prometheus.configuration(ON_SWARM, 30))["scrape_configs"]

    assert job["dns_sd_configs"] == [
        {
            "names": ["tasks.registry-team-docker-io"],
            "type": "A",
            "port": 5001,
            "refresh_interval": "30s",
        }
    ]
    given = {rule["target_label"]: rule.get("replacement") for rule in job["relabel_configs"]}
    assert given == {"stack": "team", "upstream": "docker.io", "node": None}


def test_all_is_asked_and_judged_as_often_as_wanted() -> None:
    written = yaml.safe_load(prometheus.configuration(ON_ENGINE, 5))

    assert written["global"] == {"scrape_interval": "5s", "evaluation_interval": "5s"}
    assert written["rule_files"] == [prometheus.RULES]


def test_alerts_are_those_of_one_stack() -> None:
    (group,) = yaml.safe_load(prometheus.rules("dev"))["groups"]

    assert [rule["alert"] for rule in group["rules"]] == [
        "RegistryCacheDown",
        "RegistryCacheNodeMissing",
        "RegistryCacheFails",
    ]
    assert all('stack="dev"' in rule["expr"] for rule in group["rules"])
