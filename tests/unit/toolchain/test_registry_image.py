import io
import re
import tarfile
from pathlib import Path
from typing import Any

import pytest

from components.settings import caches
from tests.unit.toolchain.fakes import Commands, programs
from toolchain import debian, engine, golang, registry_image
from toolchain.golang import Program
from toolchain.paths import ROOT
from toolchain.report import SetupError

HOST = "unix:///var/run/docker.sock"
DEFAULT = registry_image.reference()
OLDER = registry_image.reference(registry_image.OLDER)
BUILT = registry_image.built_reference()
BUILT_OLDER = registry_image.built_reference(registry_image.OLDER)
BUILT_HERE = dict([registry_image.LABEL])


# Versions


def test_the_default_image_is_of_the_version_that_is_pinned() -> None:
    go_mod = (ROOT / "toolchain" / "go" / "registry" / "go.mod").read_text()
    pinned = re.search(r"^require \S+/distribution/v3 v(\S+)$", go_mod, re.MULTILINE)

    assert pinned is not None
    assert caches.DEFAULT_IMAGE == DEFAULT == f"registry:{pinned[1]}"


@pytest.mark.parametrize("path", sorted(ROOT.glob("Pulumi.*.yaml")), ids=lambda path: path.stem)
def test_every_image_that_a_stack_file_names_can_be_built(path: Path) -> None:
    named = set(re.findall(r"image:\s*\"?([^\s\"},]+)", path.read_text()))

    assert named <= {DEFAULT, OLDER}


def test_the_image_of_the_guide_is_the_older_one() -> None:
    assert OLDER in (ROOT / "Pulumi.guide.yaml").read_text()


# The layer


@pytest.fixture
def layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, tarfile.TarInfo]:
    return {member.name: member for member in tarfile.open(fileobj=archive(tmp_path, monkeypatch))}


def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> io.BytesIO:
    for name in ("registry", "busybox", "certificates"):
        (tmp_path / name).write_text(f"the {name}")
    monkeypatch.setattr(registry_image, "CERTIFICATES", tmp_path / "certificates")
    return io.BytesIO(registry_image._layer(tmp_path / "registry", tmp_path / "busybox"))


def test_the_storage_belongs_to_the_user_of_the_image(layer: dict[str, tarfile.TarInfo]) -> None:
    storage = layer["var/lib/registry"]

    assert storage.isdir()
    assert (storage.uid, storage.gid, storage.mode) == (65532, 65532, 0o755)
    assert "USER 65532" in registry_image.CHANGES
    assert "VOLUME /var/lib/registry" in registry_image.CHANGES


def test_all_else_belongs_to_root_and_only_root_can_change_it(
    layer: dict[str, tarfile.TarInfo],
) -> None:
    for name, entry in layer.items():
        if name != "var/lib/registry":
            assert (entry.uid, entry.gid) == (0, 0)
            assert entry.issym() or not entry.mode & 0o022


def test_programs_can_be_run_and_files_read_by_the_user(
    layer: dict[str, tarfile.TarInfo],
) -> None:
    modes = {name: entry.mode for name, entry in layer.items() if entry.isfile()}

    assert modes == {
        "bin/registry": 0o755,
        "bin/busybox": 0o755,
        "etc/distribution/config.yml": 0o644,
        "etc/passwd": 0o644,
        "etc/ssl/certs/ca-certificates.crt": 0o644,
    }


def test_every_path_is_below_the_root_and_after_its_folder(
    layer: dict[str, tarfile.TarInfo],
) -> None:
    seen = {"."}
    for name, entry in layer.items():
        assert not name.startswith("/")
        assert ".." not in Path(name).parts
        assert str(Path(name).parent) in seen
        if entry.isdir():
            seen.add(name)


def test_the_tools_of_the_probe_and_of_the_credential_command_are_busybox(
    layer: dict[str, tarfile.TarInfo],
) -> None:
    links = {name: entry.linkname for name, entry in layer.items() if entry.issym()}

    assert links == dict.fromkeys(
        ["bin/cat", "bin/sh", "bin/sleep", "bin/test", "bin/wget"], "busybox"
    )


def test_files_have_their_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(name: str) -> bytes:
        file = tar.extractfile(name)
        assert file is not None
        return file.read()

    with tarfile.open(fileobj=archive(tmp_path, monkeypatch)) as tar:
        assert read("bin/registry") == b"the registry"
        assert read("bin/busybox") == b"the busybox"
        assert read("etc/ssl/certs/ca-certificates.crt") == b"the certificates"
        assert b"registry:x:65532:65532:" in read("etc/passwd")
        assert b"rootdirectory: /var/lib/registry" in read("etc/distribution/config.yml")


def test_the_same_programs_make_the_same_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = archive(tmp_path, monkeypatch).getvalue()
    second = archive(tmp_path, monkeypatch).getvalue()

    assert first == second


# Pulled or built


class FakeEngine:
    """An engine that holds some images, and may reach a registry."""

    def __init__(self) -> None:
        self.images: dict[str, dict[str, str]] = {}
        self.reaches_a_registry = True
        self.pulled: list[str] = []
        self.imported: list[str] = []

    def has_image(self, host: str, reference: str) -> bool:
        return self.image_labels(host, reference) is not None

    def image_labels(self, host: str, reference: str) -> dict[str, str] | None:
        assert host == HOST
        return self.images.get(reference)

    def tag_image(self, _: str, reference: str, repository: str, tag: str) -> None:
        self.images[f"{repository}:{tag}"] = self.images[reference]

    def pull_image(self, _: str, repository: str, tag: str, *, timeout_s: float) -> None:
        assert timeout_s > 0
        if not self.reaches_a_registry:
            raise OSError("no such host")
        self.pulled.append(f"{repository}:{tag}")

    def import_image(
        self, _: str, tar: bytes, repository: str, tag: str, changes: list[str]
    ) -> None:
        assert tar == b"layer"
        assert changes == registry_image.CHANGES
        self.imported.append(f"{repository}:{tag}")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    made = FakeEngine()
    for name in ("has_image", "image_labels", "tag_image", "pull_image", "import_image"):
        monkeypatch.setattr(engine, name, getattr(made, name))
    monkeypatch.setattr(golang, "ensure", lambda program: Path(program.name))
    monkeypatch.setattr(registry_image, "_busybox", lambda: Path("busybox"))
    monkeypatch.setattr(registry_image, "_layer", lambda *_: b"layer")
    return made


@pytest.mark.parametrize("image", [DEFAULT, BUILT])
def test_an_image_that_is_there_is_left_alone(fake: FakeEngine, image: str) -> None:
    fake.images = {image: {}}

    registry_image.ensure(HOST)

    assert fake.pulled == fake.imported == []
    assert list(fake.images) == [image]


def test_an_image_that_an_older_version_has_built_gets_the_name_that_it_has_now(
    fake: FakeEngine,
) -> None:
    fake.images = {DEFAULT: BUILT_HERE}

    registry_image.ensure(HOST)

    assert fake.images == {DEFAULT: BUILT_HERE, BUILT: BUILT_HERE}
    assert fake.pulled == fake.imported == []


def test_an_image_is_pulled_where_a_registry_can_be_reached(fake: FakeEngine) -> None:
    registry_image.ensure(HOST)

    assert (fake.pulled, fake.imported) == ([DEFAULT], [])


def test_an_image_is_built_where_none_can_be_reached(
    fake: FakeEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.reaches_a_registry = False

    registry_image.ensure(HOST)

    assert (fake.pulled, fake.imported) == ([], [BUILT])
    said = capsys.readouterr().err
    assert f"it cannot be pulled (no such host), so {BUILT} is built here and used instead" in said


@pytest.mark.parametrize(
    ("stack", "images"), [("dev", [DEFAULT]), ("ci", [DEFAULT]), ("guide", [DEFAULT, OLDER])]
)
def test_a_stack_has_the_images_that_it_names(
    fake: FakeEngine, stack: str, images: list[str]
) -> None:
    registry_image.ensure(HOST, (ROOT / f"Pulumi.{stack}.yaml").read_text())

    assert fake.pulled == images


def test_all_images_are_those_that_all_stack_files_name(fake: FakeEngine) -> None:
    fake.images = {DEFAULT: {}}
    fake.reaches_a_registry = False

    registry_image.ensure_all(HOST)

    assert fake.imported == [BUILT_OLDER]


# Busybox


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Commands:
    """Commands of a Debian machine: a download leaves a package, and extracting it a program."""
    noted = Commands()

    def run(command: Any, cwd: Path | None = None) -> str:
        if "download" in command:
            assert cwd is not None
            (cwd / "busybox-static_1.35.0_amd64.deb").touch()
        if "--extract" in command:
            (command[-1] / "bin").mkdir()
            (command[-1] / "bin" / "busybox").touch()
        return noted(command)

    monkeypatch.setattr(registry_image, "CACHE", tmp_path)
    monkeypatch.setattr(debian, "run", run)
    monkeypatch.setattr("shutil.which", programs("apt-get", "dpkg-deb"))
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    return noted


def test_busybox_comes_from_its_package_once(commands: Commands, tmp_path: Path) -> None:
    first, second = registry_image._busybox(), registry_image._busybox()

    assert first == second == tmp_path / "busybox" / "bin" / "busybox"
    assert [line.split()[:2] for line in commands.lines] == [
        ["apt-get", "download"],
        ["dpkg-deb", "--extract"],
    ]
    assert not list((tmp_path / "busybox").glob("*.deb"))


def test_root_brings_the_package_lists_up_to_date_first(
    commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)

    registry_image._busybox()

    assert commands.lines[0].startswith("apt-get update")


def test_where_it_cannot_be_built_the_person_is_told_how_to_bring_it(
    commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", programs())

    with pytest.raises(SetupError, match=f"docker save {DEFAULT} \\| docker load"):
        registry_image._busybox()

    assert commands.lines == []


def test_a_registry_is_named_by_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Program, "version", "v9.8.7")

    assert registry_image.reference() == "registry:9.8.7"
    assert registry_image.built_reference() == "talos-registry-cache/registry:9.8.7"
