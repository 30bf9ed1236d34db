"""The registry image is pulled, or built to run without root as the official one does."""

import io
import re
import tarfile
from pathlib import Path

import pytest

from components.settings import caches
from tests.unit.toolchain.fakes import programs
from toolchain import debian, engine, golang, registry_image
from toolchain.paths import ROOT
from toolchain.report import SetupError

HOST = "unix:///var/run/docker.sock"
DEFAULT = registry_image.reference()
OLDER = registry_image.reference(registry_image.OLDER)
BUILT = registry_image.built_reference()
BUILT_OLDER = registry_image.built_reference(registry_image.OLDER)


# Versions


def test_default_image_has_the_pinned_version() -> None:
    go_mod = (ROOT / "toolchain" / "go" / "registry" / "go.mod").read_text()
    pinned = re.search(r"^require \S+/distribution/v3 v(\S+)$", go_mod, re.MULTILINE)

    assert pinned is not None
    assert caches.DEFAULT_IMAGE == DEFAULT == f"registry:{pinned[1]}"


@pytest.mark.parametrize("path", sorted(ROOT.glob("Pulumi.*.yaml")), ids=lambda path: path.stem)
def test_every_image_in_a_stack_file_can_be_built(path: Path) -> None:
    named = set(re.findall(r"image:\s*\"?([^\s\"},]+)", path.read_text()))

    assert named <= {DEFAULT, OLDER}


# The layer


@pytest.fixture
def layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tarfile.TarFile:
    for name in ("registry", "busybox", "certificates"):
        (tmp_path / name).write_text(f"the {name}")
    monkeypatch.setattr(registry_image, "CERTIFICATES", tmp_path / "certificates")
    first, second = (
        registry_image._layer(tmp_path / "registry", tmp_path / "busybox") for _ in range(2)
    )
    assert first == second, "the same programs make the same layer"
    return tarfile.open(fileobj=io.BytesIO(first))


def test_only_the_storage_belongs_to_the_unprivileged_user(layer: tarfile.TarFile) -> None:
    storage = layer.getmember("var/lib/registry")
    assert (storage.uid, storage.gid, storage.mode) == (65532, 65532, 0o755)
    assert {"USER 65532", "VOLUME /var/lib/registry"} <= {*registry_image.CHANGES}
    seen = {"."}
    for entry in layer.getmembers():
        assert str(Path(entry.name).parent) in seen, "a folder comes before its files"
        seen |= {entry.name} if entry.isdir() else set()
        if entry is not storage:
            assert (entry.uid, entry.gid) == (0, 0)
            assert entry.issym() or not entry.mode & 0o022


def test_files_can_be_read_and_programs_run_by_any_user(layer: tarfile.TarFile) -> None:
    for name, content, mode in (
        ("bin/registry", b"the registry", 0o755),
        ("bin/busybox", b"the busybox", 0o755),
        ("bin/wget", b"the busybox", 0o755),
        ("etc/ssl/certs/ca-certificates.crt", b"the certificates", 0o644),
        ("etc/passwd", b"registry:x:65532:65532:", 0o644),
        ("etc/distribution/config.yml", b"rootdirectory: /var/lib/registry", 0o644),
    ):
        file, entry = layer.extractfile(name), layer.getmember(name)
        assert file is not None
        assert content in file.read()
        assert entry.issym() or entry.mode == mode


# Pulled or built


class FakeEngine:
    """An engine with some images, which may be able to pull."""

    def __init__(self) -> None:
        self.images: set[str] = set()
        self.can_pull = True
        self.pulled: list[str] = []
        self.imported: list[str] = []

    def has_image(self, host: str, reference: str) -> bool:
        assert host == HOST
        return reference in self.images

    def pull_image(self, _: str, repository: str, tag: str, *, timeout_s: float) -> None:
        assert timeout_s > 0
        if not self.can_pull:
            raise OSError("no such host")
        self.pulled.append(f"{repository}:{tag}")

    def import_image(self, _: str, __: bytes, repository: str, tag: str, ___: list[str]) -> None:
        self.imported.append(f"{repository}:{tag}")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    made = FakeEngine()
    for name in ("has_image", "pull_image", "import_image"):
        monkeypatch.setattr(engine, name, getattr(made, name))
    monkeypatch.setattr(golang, "ensure", lambda program: Path(program.name))
    monkeypatch.setattr(debian, "unpacked", Path)
    monkeypatch.setattr(registry_image, "_layer", lambda *_: b"layer")
    return made


@pytest.mark.parametrize(
    ("images", "can_pull", "pulled", "built"),
    [
        ({DEFAULT}, True, [], []),
        ({BUILT}, True, [], []),
        (set(), True, [DEFAULT], []),
        (set(), False, [], [BUILT]),
    ],
)
def test_missing_image_is_pulled_or_else_built(
    fake: FakeEngine, images: set[str], pulled: list[str], built: list[str], *, can_pull: bool
) -> None:
    fake.images, fake.can_pull = images, can_pull

    registry_image.ensure(HOST)

    assert (fake.pulled, fake.imported) == (pulled, built)


@pytest.mark.parametrize(("stack", "images"), [("dev", [DEFAULT]), ("guide", [DEFAULT, OLDER])])
def test_images_of_one_or_all_stacks_are_prepared(
    fake: FakeEngine, stack: str, images: list[str]
) -> None:
    registry_image.ensure(HOST, (ROOT / f"Pulumi.{stack}.yaml").read_text())

    assert fake.pulled == images

    fake.images, fake.can_pull = {DEFAULT}, False
    registry_image.ensure_all(HOST)
    assert fake.imported == [BUILT_OLDER]


def test_message_says_how_to_copy_an_image_that_cannot_be_built(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(debian, "CACHE", tmp_path)
    monkeypatch.setattr("shutil.which", programs())

    with pytest.raises(SetupError, match=f"docker save {DEFAULT} \\| docker load"):
        registry_image._busybox()
