import pytest

from talos_registry_cache.registry import platforms
from talos_registry_cache.registry.errors import PlatformError
from talos_registry_cache.registry.platforms import Platform


@pytest.mark.parametrize(
    ("text", "platform"),
    [
        ("linux/amd64", Platform("linux", "amd64")),
        ("linux/x86_64", Platform("linux", "amd64")),
        ("linux/aarch64", Platform("linux", "arm64")),
        ("linux/arm/v7", Platform("linux", "arm", "v7")),
    ],
)
def test_platforms_are_parsed(text: str, platform: Platform) -> None:
    assert platforms.parse(text) == platform


@pytest.mark.parametrize(
    "text",
    [
        "",
        "linux",
        "amd64",
        "linux/",
        "linux/arm/v7/x",
        "Linux/amd64",
        "linux/nonsense",
        "nonsense/amd64",
        "linux/arm/nonsense",
        "linux/arm/",
    ],
)
def test_an_invalid_platform_is_refused(text: str) -> None:
    with pytest.raises(PlatformError, match="allowed: OS/ARCHITECTURE") as refused:
        platforms.parse(text)

    assert repr(text) in str(refused.value)


@pytest.mark.parametrize(
    ("node", "runs"),
    [
        ("linux/amd64", ["linux/amd64/v1"]),
        ("linux/amd64/v3", ["linux/amd64/v3", "linux/amd64/v2", "linux/amd64/v1"]),
        ("linux/arm64", ["linux/arm64/v8"]),
        ("linux/arm64/v8.2", ["linux/arm64/v8.2", "linux/arm64/v8.1", "linux/arm64/v8"]),
        ("linux/arm/7", ["linux/arm/v7", "linux/arm/v6", "linux/arm/v5"]),
        ("linux/arm", ["linux/arm/v7", "linux/arm/v6", "linux/arm/v5"]),
        ("linux/s390x", ["linux/s390x"]),
    ],
)
def test_a_node_prefers_its_own_variant_to_older_ones(node: str, runs: list[str]) -> None:
    assert [str(each) for each in platforms.preference(platforms.parse(node))] == runs


def test_arm_v9_also_runs_the_matching_v8_variants() -> None:
    runs = [each.variant for each in platforms.preference(Platform("linux", "arm64", "v9.1"))]

    assert runs == ["v9.1", "v9", "v8.6", "v8.5", "v8.4", "v8.3", "v8.2", "v8.1", "v8"]
