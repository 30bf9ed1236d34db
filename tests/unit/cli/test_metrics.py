import pytest

from talos_registry_cache.cli.commands.status import Usage, parse_usage
from talos_registry_cache.cli.metrics import Metrics, read_metrics

TEXT = """\
# TYPE registry_proxy_hits_total counter
registry_proxy_hits_total{type="blob"} 3
registry_proxy_hits_total{type="manifest"} 4
registry_proxy_misses_total{type="blob"} 2
registry_proxy_pulled_bytes_total{type="blob"} 1.5e+06
registry_proxy_pulled_bytes_total{type="manifest"} 500
registry_proxy_pushed_bytes_total{type="blob"} 4e+06
registry_proxy_requests_total{type="blob"} 5
registry_storage_cache_hits_total 9
"""


def test_blobs_and_manifests_are_added_up() -> None:
    metrics = read_metrics(TEXT)

    assert metrics == Metrics(hits=7, misses=2, from_upstream=1_500_500, to_clients=4_000_000)
    assert metrics.saved == 2_499_500


def test_a_cache_that_was_only_warmed_saved_nothing() -> None:
    assert Metrics(0, 1, from_upstream=10, to_clients=5).saved == 0


@pytest.mark.parametrize("value", ["NaN", "+Inf", "1e999", "9" * 5000, "-1", "much", "1,5"])
def test_values_that_are_no_counts_are_ignored(value: str) -> None:
    assert read_metrics(f'registry_proxy_hits_total{{type="blob"}} {value}\n') is None
    assert read_metrics("go_goroutines 12\n") is None


def test_the_output_of_the_probe_is_parsed() -> None:
    base = "./docker/registry/v2/repositories"
    printed = (
        "52\t.\n"
        f"{base}/team/app/_manifests/tags/1/current/link\n"
        f"{base}/team/app/_manifests/tags/2/current/link\n"
        f"{base}/tool/_manifests/tags/1/current/link\n"
        f"\n{TEXT}"
    )

    assert parse_usage(printed) == Usage(2, 3, 52 << 10, read_metrics(TEXT))
    assert parse_usage("4\t.\n\n") == Usage(0, 0, 4096, None)
