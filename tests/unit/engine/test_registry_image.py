import pytest

from talos_registry_cache.engine import registry_image
from tests.unit.components.fake_engine import FakeEngine
from toolchain import official_image

OFFICIAL = "registry:3.1.2"
BUILT = "talos-registry-cache/registry:3.1.2"


def test_the_toolchain_builds_images_under_the_expected_name() -> None:
    assert official_image.built_reference(OFFICIAL) == f"{registry_image.BUILT}/{OFFICIAL}"


@pytest.mark.parametrize(
    ("images", "to_run"),
    [((), OFFICIAL), ((OFFICIAL,), OFFICIAL), ((BUILT,), BUILT), ((OFFICIAL, BUILT), OFFICIAL)],
)
def test_the_built_image_runs_only_where_the_one_in_the_settings_is_missing(
    images: tuple[str, ...], to_run: str
) -> None:
    fake = FakeEngine(images_here={image: {} for image in images})

    assert registry_image.on_engine(fake, OFFICIAL) == to_run  # type: ignore[arg-type]
