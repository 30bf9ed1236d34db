import pytest

from talos_registry_cache.registry import platforms
from talos_registry_cache.registry.errors import PlatformError
from talos_registry_cache.registry.platforms import Platform


@pytest.mark.parametrize(
    ("text", "platform"),
    [
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
        *("", "linux", "linux/", "linux/arm/", "linux/arm/v7/x", "Linux/amd64"),
        *("linux/nonsense", "nonsense/amd64", "linux/arm/nonsense"),
    ],
)
def test_an_invalid_platform_is_refused(text: str) -> None:
    with pytest.raises(PlatformError, match="allowed: OS/ARCHITECTURE") as refused:
        platforms.parse(text)

    assert repr(text) in str(refused.value)


@pytest.mark.parametrize(
    ("node", "runs"),
    [
        ("linux/amd64", "v1"),
        ("linux/amd64/v3", "v3 v2 v1"),
        ("linux/arm64", "v8"),
        ("linux/arm64/v8.2", "v8.2 v8.1 v8"),
        ("linux/arm64/v9.1", "v9.1 v9 v8.6 v8.5 v8.4 v8.3 v8.2 v8.1 v8"),
        ("linux/arm/7", "v7 v6 v5"),
        ("linux/arm", "v7 v6 v5"),
    ],
)
def test_a_node_prefers_its_own_variant_to_older_ones(node: str, runs: str) -> None:
    preferred = platforms.preference(platforms.parse(node))

    name = "/".join(node.split("/")[:2])
    assert [str(each) for each in preferred] == [f"{name}/{variant}" for variant in runs.split()]


def test_an_architecture_without_variants_runs_itself() -> None:
    [own] = platforms.preference(platforms.parse("linux/s390x"))
    assert str(own) == "linux/s390x"


def test_several_platforms_are_parsed_once_each_and_all_includes_the_others() -> None:
    texts = ["linux/arm64", "linux/x86_64", "linux/amd64"]
    some = platforms.parse_all(texts)

    assert platforms.names(some) == ("linux/arm64", "linux/amd64")
    assert platforms.parse_all(platforms.names(some)) == some
    assert platforms.parse_all([*texts, "all"]) == platforms.ALL
    assert platforms.names(platforms.ALL) == ("all",)


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        (Platform("", "AMD64"), Platform("linux", "amd64", "v1")),
        (Platform("Linux", "armhf"), Platform("linux", "arm", "v7")),
        (Platform("linux", "armel", "v8"), Platform("linux", "arm", "v6")),
        (Platform("linux", "i386"), Platform("linux", "386")),
        (Platform("linux", "arm64", "V8.0"), Platform("linux", "arm64", "v8")),
    ],
)
def test_the_normal_form_is_that_of_containerd(written: Platform, normal: Platform) -> None:
    assert platforms.normal(written) == normal
