import os
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pulumi
import pytest

from components import image_set, settings
from components.engine import EngineFacts
from components.image_set import ImageSet, ImageSetArgs, Resolved
from components.settings.images import Images
from talos_registry_cache.registry import files, image_lock
from talos_registry_cache.registry.image_lock import ImageLock, LockedImage
from talos_registry_cache.registry.s3_location import S3Credentials, S3Location
from talos_registry_cache.talos.images import DEFAULT_SCHEMATIC
from tests.unit.components import stack_graph
from tests.unit.components.declared_caches import cache_of, engine_with
from tests.unit.components.parsed_settings import caches_of
from tests.unit.components.stack_graph import (
    CACHED_IMAGES,
    CONTAINER,
    IMAGE_SET,
    VOLUME,
    Declared,
    Graph,
    Secret,
)
from tests.unit.talos import programs

CACHES: Mapping[str, Any] = {
    "upstreams": dict.fromkeys(("docker.io", "quay.io", "ghcr.io", "factory.talos.dev"))
}
IMAGES = ["docker.io/library/nginx:1.29", "quay.io/coreos/etcd:v3.6.4"]
PLATFORMS = ["linux/amd64", "linux/arm64"]


def resolve(images: Mapping[str, Any] | None, folder: Path = Path()) -> Resolved:
    """Resolve settings on this machine."""
    parsed = settings.parse("dev", {"caches": CACHES, "images": images})
    return image_set.resolve(parsed.images, parsed.caches, folder)


def found(images: Mapping[str, Any], folder: Path = Path()) -> list[str]:
    resolved = resolve(images, folder)
    assert not resolved.mistakes
    return list(resolved.images)


def mistakes(images: Mapping[str, Any], folder: Path = Path()) -> list[str]:
    return [str(mistake) for mistake in resolve(images, folder).mistakes]


@pytest.fixture
def talosctl(tmp_path: Path) -> Callable[[str, str], str]:
    """Creates a talosctl of a version that lists images, and returns its path."""

    def make(version: str, listed: str) -> str:
        said = programs.VERSION_OUTPUT.format(tag=version)
        script = (
            f"case \"$*\" in\n'version --client') cat <<'END'\n{said}END\n;;\n"
            f"*) echo \"$*\" > {tmp_path / 'asked'}; printf '{listed}';;\nesac"
        )
        return programs.shell(tmp_path / "talosctl", script)

    return make


# Images


def test_without_settings_or_caches_there_are_no_images() -> None:
    images = settings.parse("dev", {"caches": CACHES, "images": {"references": ["nginx"]}}).images

    assert resolve(None) == image_set.resolve(images, None, Path()) == Resolved([], [], [])


@pytest.mark.parametrize(
    "case",
    [
        ("v1.11.5", {}, "image default", "ghcr.io/siderolabs/talos:v1.11.5"),
        ("v1.13.0", {}, "image k8s-bundle", "ghcr.io/siderolabs/talos:v1.13.0"),
        (
            "v1.13.0",
            {"talosVersion": "v1.12.1", "kubernetesVersion": "1.35.0"},
            "image k8s-bundle --k8s-version v1.35.0",
            "ghcr.io/siderolabs/talos:v1.12.1",
        ),
    ],
)
def test_talos_adds_the_images_listed_by_talosctl_and_the_node_image(
    tmp_path: Path,
    talosctl: Callable[[str, str], str],
    case: tuple[str, dict[str, str], str, str],
) -> None:
    version, written, asked, node_image = case
    program = talosctl(
        version, "quay.io/coreos/etcd:v3.6.4\\nghcr.io/siderolabs/kubelet:v1.35.0\\n"
    )

    images = found({"talos": {"talosctl": program, **written}})

    assert images == [
        "quay.io/coreos/etcd:v3.6.4",
        "ghcr.io/siderolabs/kubelet:v1.35.0",
        node_image,
    ]
    assert (tmp_path / "asked").read_text().strip() == asked


@pytest.mark.parametrize(
    ("written", "image"),
    [
        ({}, f"factory.talos.dev/metal-installer/{DEFAULT_SCHEMATIC}:v1.14.0"),
        ({"schematic": "a" * 64}, f"factory.talos.dev/metal-installer/{'a' * 64}:v1.14.0"),
        ({"talosVersion": "v1.13.0"}, None),
    ],
)
def test_talos_adds_the_installer_of_the_image_factory_since_1_14(
    talosctl: Callable[[str, str], str], written: dict[str, str], image: str | None
) -> None:
    program = talosctl("v1.14.0", "quay.io/coreos/etcd:v3.6.4\\n")
    images = found({"talos": {"talosctl": program, **written}})

    assert [one for one in images if "installer" in one] == ([image] if image else [])


def test_references_file_and_talos_are_merged_without_duplicates(
    tmp_path: Path, talosctl: Callable[[str, str], str]
) -> None:
    (tmp_path / "images.txt").write_text("# for the demo\n\nnginx  # the proxy\n  redis\n#a\n")
    program = talosctl("v1.13.0", "quay.io/coreos/etcd:v3.6.4\\n")
    written = {"references": ["nginx", "docker.io/nginx"], "talos": {"talosctl": program}}

    images = found({**written, "file": "images.txt"}, tmp_path)

    assert found({**written, "file": str(tmp_path / "images.txt")}) == images
    assert images == [
        "docker.io/library/nginx:latest",
        "docker.io/library/redis:latest",
        "quay.io/coreos/etcd:v3.6.4",
        "ghcr.io/siderolabs/talos:v1.13.0",
    ]


# Manifests

POD = "spec: {containers: [{image: nginx}, {image: 'ghcr.io/team/app:1'}]}\n"


def test_the_images_of_manifests_are_added_to_the_others(tmp_path: Path) -> None:
    (tmp_path / "deploy").mkdir()
    (tmp_path / "deploy" / "app.yaml").write_text(POD)
    (tmp_path / "deploy" / "notes.txt").write_text("not read")
    compose = "services: {web: {image: 'quay.io/team/web:${HOME:-1}'}}\n"
    (tmp_path / "compose.yaml").write_text(compose)
    written = {"references": ["docker.io/library/nginx:latest"]}

    assert found({**written, "manifests": ["deploy", "compose.yaml"]}, tmp_path) == [
        "docker.io/library/nginx:latest",
        "ghcr.io/team/app:1",
        "quay.io/team/web:1",
    ]


def test_wrong_manifests_are_mistakes_with_their_places(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.yaml").write_text("a: 1\n---\nb: [\n")
    (tmp_path / "values.yaml").write_text("app: {image: A}\nother: {image: gcr.io/app}\n")
    names = ["none.yaml", "empty", "bad.yaml", "values.yaml"]

    lines = mistakes({"manifests": names}, tmp_path)

    begins = [
        "images.manifests[0]: found 'none.yaml'; allowed: a file, or a folder with files that end",
        "images.manifests[1]: found 'empty', a folder without any; allowed: a file, or a folder",
        "images.manifests[2]: found 'bad.yaml'; allowed: ",
        "images.manifests[3]: values.yaml, document 1, app.image: 'A' is not an image reference",
        "images: found gcr.io/app:latest, but there is no cache for gcr.io",
    ]
    assert [line[: len(begin)] for line, begin in zip(lines, begins, strict=True)] == begins
    assert "(line 4: not YAML: " in lines[2]


# Platforms


@pytest.mark.parametrize(
    ("machine", "of_machine"),
    [("x86_64", "linux/amd64"), ("aarch64", "linux/arm64"), ("riscv64", "linux/riscv64")],
)
def test_the_default_platform_is_the_one_of_this_machine(
    monkeypatch: pytest.MonkeyPatch, machine: str, of_machine: str
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)

    images = {"references": ["nginx", "redis"]}
    assert resolve(images).platforms == [of_machine]
    assert resolve({**images, "platforms": ["linux/s390x"]}).platforms == ["linux/s390x"]
    assert resolve({**images, "platforms": "all"}).platforms == ["all"]


# Mistakes


def test_all_mistakes_are_reported_together_with_their_paths(tmp_path: Path) -> None:
    (tmp_path / "images.txt").write_text("nginx\na b\n\ngcr.io/app:1\n-bad\n")
    images = {
        "references": ["registry.k8s.io/pause:3.10"],
        "file": "images.txt",
        "talos": {"talosctl": "no-such-talosctl"},
    }

    lines = mistakes(images, tmp_path)
    assert lines[-1].endswith("; allowed: docker.io, quay.io, ghcr.io, factory.talos.dev")
    assert [line.split("; ")[0] for line in lines] == [
        "images.file: found 'a b' in line 2 of images.txt",
        "images.file: found '-bad' in line 5 of images.txt",
        "images.talos: there is no program no-such-talosctl",
        "images: found registry.k8s.io/pause:3.10, but there is no cache for registry.k8s.io",
        "images: found gcr.io/app:1, but there is no cache for gcr.io",
    ]


@pytest.mark.parametrize("name", ["a\0b", "none", "n" * 5000, "/dev/zero", "pipe", ".", "binary"])
def test_a_path_that_is_not_a_text_file_is_a_mistake(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")

    # Settings would refuse some of these.
    images = Images.model_construct(file=name, references=[], talos=None, platform=None)
    with_caches = caches_of(settings.parse("dev", {"caches": CACHES}))

    (line,) = map(str, image_set.resolve(images, with_caches, tmp_path).mistakes)
    assert line.startswith("images.file: found '")
    assert "allowed: a readable file (" in line


def test_a_file_is_read_up_to_a_limit(tmp_path: Path) -> None:
    file = tmp_path / "images.txt"
    file.write_text("nginx\n" + "#" * (files.LIST_LIMIT - 6))
    assert mistakes({"file": "images.txt"}, tmp_path) == []

    file.write_text("#" * (files.LIST_LIMIT + 1))
    (line,) = mistakes({"file": "images.txt"}, tmp_path)
    assert f"it is larger than {files.LIST_LIMIT} bytes" in line

    file.write_text("# nothing yet\n")
    [line] = mistakes({"file": "images.txt"}, tmp_path)
    assert line.startswith("images: found no images; allowed: references, a file")


def test_invalid_output_of_talosctl_is_a_mistake(talosctl: Callable[[str, str], str]) -> None:
    (mistake,) = mistakes({"talos": {"talosctl": talosctl("v1.13.0", "usage")}})
    assert mistake.startswith("images.talos: ")
    assert "printed 'usage'; allowed: image references" in mistake

    (mistake,) = mistakes({"talos": {"talosctl": talosctl("v1.13.1", "quay.io/UPPER:1\\n")}})
    assert mistake.startswith("images.talos: 'quay.io/UPPER:1' is not an image reference")


# The graph


def declare(
    *, preview: bool = False, caches: Mapping[str, Any] = CACHES, **secrets: Mapping[str, str]
) -> Graph:
    """A stack with caches and images, as the program declares it."""
    parsed = settings.parse("dev", {"caches": caches, **secrets})

    def program() -> None:
        cache = cache_of(parsed)
        cached = ImageSet("images", ImageSetArgs(IMAGES, PLATFORMS, cache))
        pulumi.export("images", cached.digests)

    with engine_with(EngineFacts("172.17.0.1", {})):
        return stack_graph.run(program, preview=preview)


def images_of(graph: Graph) -> Declared:
    return graph.one(CACHED_IMAGES, "images")


@pytest.mark.parametrize("preview", [False, True])
def test_the_resource_has_the_endpoint_and_storage_of_each_cache(*, preview: bool) -> None:
    caches = images_of(declare(preview=preview)).inputs["caches"]

    assert caches.keys() == CACHES["upstreams"].keys()
    assert caches["quay.io"] == {
        "endpoint": "http://127.0.0.1:5002",
        "name": "registry-dev-quay.io",
        "storage": "registry-dev-quay.io",
        "image": "registry:3.1.2",
    }


@pytest.mark.parametrize("preview", [False, True])
def test_images_are_one_resource_that_depends_on_every_cache(*, preview: bool) -> None:
    graph = declare(preview=preview)

    caches = {
        one.name
        for kind in (CONTAINER, VOLUME)
        for one in graph.all(kind)
        if one.name.endswith(("-container", "-storage"))
    }
    assert graph.names(IMAGE_SET) == ["images"]
    assert images_of(graph).parent == "images"
    assert images_of(graph).inputs["images"] == IMAGES
    assert not isinstance(images_of(graph).inputs["__provider"], Secret)
    if not preview:
        assert graph.outputs["images"] == {name: stack_graph.image_id(name) for name in IMAGES}
    assert len(caches) == 2 * len(CACHES["upstreams"])
    assert caches <= images_of(graph).depends_on


def test_the_location_and_the_secret_credentials_of_an_object_store_reach_the_provider() -> None:
    storage = {"kind": "s3", "bucket": "caches", "endpoint": "http://10.0.0.1:9000"}
    keys = {"accessKey": "access", "secretKey": "s3cret"}

    inputs = images_of(declare(caches={**CACHES, "storage": storage}, s3Keys=keys)).inputs

    assert inputs["caches"]["quay.io"]["storage"] == "s3://caches/quay.io"
    assert S3Location(**inputs["s3Locations"]["quay.io"]) == S3Location(
        "caches", "quay.io", endpoint="http://10.0.0.1:9000"
    )
    assert isinstance(inputs["s3Credentials"], Secret)
    assert S3Credentials(**inputs["s3Credentials"].value) == S3Credentials("access", "s3cret")


# Locks

DIGEST, SIGNATURE = (f"sha256:{letter * 64}" for letter in "ab")
TAG = f"{DIGEST.replace(':', '-')}.sig"
LOCKED = LockedImage(DIGEST, 7, {TAG: SIGNATURE})


def write_lock(
    folder: Path, *images: str, platforms: tuple[str, ...] = ("linux/amd64",)
) -> dict[str, Any]:
    """Write a lock, and return settings that name it."""
    lock = ImageLock(platforms, "signatures", dict.fromkeys(images, LOCKED))
    (folder / "images.lock").write_text(image_lock.text_of(lock))
    return {"lock": "images.lock"}


def test_a_lock_alone_lists_the_images_with_their_platforms_and_digests(tmp_path: Path) -> None:
    settings_of_lock = write_lock(tmp_path, *IMAGES, platforms=("linux/arm64",))

    resolved = resolve(settings_of_lock, tmp_path)

    assert not resolved.mistakes
    assert resolved.images == IMAGES
    assert resolved.platforms == ("linux/arm64",)
    assert resolved.locked == dict.fromkeys(IMAGES, LOCKED)
    assert resolved.pinned == [
        f"docker.io/library/nginx:1.29@{DIGEST}",
        f"docker.io/library/nginx:{TAG}@{SIGNATURE}",
        f"quay.io/coreos/etcd:v3.6.4@{DIGEST}",
        f"quay.io/coreos/etcd:{TAG}@{SIGNATURE}",
    ]


def test_a_lock_of_the_listed_images_is_accepted(tmp_path: Path) -> None:
    settings_of_lock = write_lock(tmp_path, *IMAGES)

    assert found({**settings_of_lock, "references": IMAGES}, tmp_path) == IMAGES


@pytest.mark.parametrize(
    ("locked", "written", "mistake"),
    [
        (IMAGES[:1], {"references": IMAGES}, f"which lacks {IMAGES[1]}; allowed: what `cachectl"),
        ([], {"references": IMAGES}, f"which lacks {IMAGES[0]} and 1 more; allowed: what"),
        (IMAGES, {"references": IMAGES[:1]}, f"which has, but this file does not, {IMAGES[1]};"),
        (IMAGES, {"platforms": ["linux/arm64"]}, "found linux/arm64 beside a lock for linux/amd64"),
        (IMAGES, {"attachments": "all"}, "found all beside a lock with signatures; allowed"),
        (["gcr.io/a:1"], {}, "there is no cache for gcr.io"),
    ],
)
def test_a_lock_that_does_not_fit_the_stack_file_is_refused(
    tmp_path: Path, locked: list[str], written: dict[str, Any], mistake: str
) -> None:
    settings_of_lock = write_lock(tmp_path, *locked)

    [line] = mistakes({**settings_of_lock, **written}, tmp_path)

    assert line.startswith("images")
    assert mistake in line


def test_an_edited_or_missing_lock_is_refused(tmp_path: Path) -> None:
    written = write_lock(tmp_path, *IMAGES)
    file = tmp_path / "images.lock"
    file.write_text(file.read_text().replace(DIGEST, SIGNATURE))
    [line] = mistakes(written, tmp_path)
    assert "found 'images.lock': it was edited, or merged by hand: run `cachectl lock`" in line

    file.unlink()
    [line] = mistakes(written, tmp_path)
    assert "found 'images.lock': it cannot be read" in line
