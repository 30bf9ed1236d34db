import pytest

from talos_registry_cache.engine import registry_image
from tests.unit.components.fake_engine import FakeEngine
from toolchain import registry_image as toolchain

OFFICIAL = "registry:3.1.2"
BUILT = "talos-registry-cache/registry:3.1.2"
BUILT_HERE = dict([registry_image.BUILT_LABEL])


def test_the_toolchain_gives_the_names_and_labels_that_are_looked_for() -> None:
    assert toolchain.built_reference() == f"{registry_image.BUILT}/{toolchain.reference()}"
    assert toolchain.LABEL == registry_image.BUILT_LABEL


@pytest.mark.parametrize(
    ("images", "to_run"),
    [
        ({}, OFFICIAL),
        ({OFFICIAL: {}}, OFFICIAL),
        ({BUILT: BUILT_HERE}, BUILT),
        ({OFFICIAL: {}, BUILT: BUILT_HERE}, OFFICIAL),
        # An older version of the toolchain gave what it built the name of the official image.
        ({OFFICIAL: BUILT_HERE}, OFFICIAL),
        ({OFFICIAL: BUILT_HERE, BUILT: BUILT_HERE}, BUILT),
    ],
)
def test_the_image_that_settings_name_is_run_or_the_one_that_stands_for_it(
    images: dict[str, dict[str, str]], to_run: str
) -> None:
    fake = FakeEngine(images_here=images)

    assert registry_image.on_engine(fake, OFFICIAL) == to_run  # type: ignore[arg-type]
