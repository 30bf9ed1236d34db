"""Official images are pulled, or built to run as an unprivileged user under another name."""

import io
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from toolchain import debian, engine, official_image
from toolchain.official_image import Content
from toolchain.report import SetupError

HOST = "unix:///var/run/docker.sock"
OFFICIAL = "server:1.2-alpine"
BUILT = official_image.built_reference(OFFICIAL)
CONTENT = Content(
    programs={"bin/server": b"the server"},
    files={"etc/server/config": b"the configuration"},
    owned=["var/lib/data"],
    instructions=["VOLUME /var/lib/data"],
)


@dataclass
class FakeEngine:
    """An engine with some images, which may be able to pull."""

    images: set[str]
    can_pull: bool
    pulled: list[str] = field(default_factory=list)
    imported: list[str] = field(default_factory=list)
    layers: list[bytes] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)

    def has_image(self, host: str, reference: str) -> bool:
        assert host == HOST
        return reference in self.images

    def pull_image(self, _: str, repository: str, tag: str, *, timeout_s: float) -> None:
        assert timeout_s > 0
        if not self.can_pull:
            raise OSError("no such host")
        self.pulled.append(f"{repository}:{tag}")

    def import_image(
        self, _: str, layer: bytes, repository: str, tag: str, changes: list[str]
    ) -> None:
        self.imported.append(f"{repository}:{tag}")
        self.layers.append(layer)
        self.changes = changes


@pytest.fixture(autouse=True)
def busybox(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "busybox").write_text("the busybox")
    monkeypatch.setattr(debian, "busybox", lambda: tmp_path / "busybox")


def fake(monkeypatch: pytest.MonkeyPatch, *images: str, can_pull: bool = False) -> FakeEngine:
    made = FakeEngine({*images}, can_pull)
    for name in ("has_image", "pull_image", "import_image"):
        monkeypatch.setattr(engine, name, getattr(made, name))
    return made


@pytest.mark.parametrize(
    ("images", "can_pull", "pulled", "built"),
    [
        ([OFFICIAL], True, [], []),
        ([BUILT], True, [], []),
        ([], True, [OFFICIAL], []),
        ([], False, [], [BUILT]),
    ],
)
def test_missing_image_is_pulled_or_else_built(
    monkeypatch: pytest.MonkeyPatch,
    images: list[str],
    pulled: list[str],
    built: list[str],
    *,
    can_pull: bool,
) -> None:
    made = fake(monkeypatch, *images, can_pull=can_pull)

    official_image.ensure(HOST, OFFICIAL, lambda: CONTENT)

    assert (made.pulled, made.imported) == (pulled, built)


def test_message_says_how_to_copy_an_image_that_cannot_be_built(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake(monkeypatch)

    def fail() -> Content:
        raise SetupError("no apt-get")

    with pytest.raises(SetupError, match=f"no apt-get\n.*docker save {OFFICIAL} \\| docker load"):
        official_image.ensure(HOST, OFFICIAL, fail)


@pytest.fixture
def layer(monkeypatch: pytest.MonkeyPatch) -> tarfile.TarFile:
    """The layer of a built image, which is the same each time."""
    made = fake(monkeypatch)
    for _ in range(2):
        official_image.ensure(HOST, OFFICIAL, lambda: CONTENT)
    first, second = made.layers
    assert first == second
    assert {"USER 65532", *CONTENT.instructions} <= {*made.changes}
    return tarfile.open(fileobj=io.BytesIO(first))


def test_only_owned_folders_belong_to_the_unprivileged_user(layer: tarfile.TarFile) -> None:
    data = layer.getmember("var/lib/data")
    assert (data.uid, data.gid, data.mode) == (65532, 65532, 0o755)
    seen = {"."}
    for entry in layer.getmembers():
        assert str(Path(entry.name).parent) in seen, "a folder comes before its files"
        seen |= {entry.name} if entry.isdir() else set()
        if entry is not data:
            assert (entry.uid, entry.gid) == (0, 0)
            assert entry.name == "tmp" or entry.issym() or not entry.mode & 0o022


def test_every_user_may_write_to_tmp_as_in_official_images(layer: tarfile.TarFile) -> None:
    assert layer.getmember("tmp").mode == 0o1777


@pytest.mark.parametrize(
    ("name", "content", "mode"),
    [
        ("bin/server", b"the server", 0o755),
        ("bin/busybox", b"the busybox", 0o755),
        ("bin/wget", b"the busybox", 0o777),
        ("etc/server/config", b"the configuration", 0o644),
        ("etc/passwd", b"nonroot:x:65532:65532:", 0o644),
    ],
)
def test_files_can_be_read_and_programs_run_by_any_user(
    layer: tarfile.TarFile, name: str, content: bytes, mode: int
) -> None:
    file = layer.extractfile(name)
    assert file is not None
    assert content in file.read()
    assert layer.getmember(name).mode == mode
