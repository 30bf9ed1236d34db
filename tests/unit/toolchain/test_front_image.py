"""The front's image is built from the machine's package, with the libraries of its program."""

from pathlib import Path

import pytest

from tests.unit.toolchain.fakes import Commands
from toolchain import debian, front_image

CACHES = "config:\n  talos-registry-cache:caches:\n    upstreams: {docker.io: }\n"


@pytest.mark.parametrize(
    ("stack_file", "is_used"),
    [
        (CACHES, False),
        (f"{CACHES}    # front: {{}}\n", False),
        (f"{CACHES}    offline: true # before the front: none\n", False),
        (f"{CACHES}    namePrefix: front\n", False),
        (f"{CACHES}      store-front: {{}}\n", False),
        (f"{CACHES}    front:\n      tagFreshness: 1m\n", True),
        (f"{CACHES}    front: {{tagFreshness: 1m}}  # nginx\n", True),
        ("config:\n  talos-registry-cache:caches: {upstreams: {}, front: {}}\n", True),
        ('config:\n  talos-registry-cache:caches: {"front": {}}\n', True),
    ],
)
def test_image_is_used_if_a_stack_file_has_a_front(stack_file: str, *, is_used: bool) -> None:
    assert front_image.is_used(stack_file) is is_used


@pytest.mark.parametrize("libraries", ["lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu"])
def test_program_is_packed_with_its_libraries_where_its_loader_finds_them(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    libraries: str,
) -> None:
    commands = Commands()

    def unpack(package: str, folder: Path) -> str:
        assert package == "nginx"
        contents = {"usr/sbin/nginx": "nginx", f"{libraries}/ld-linux.so.2": "loader"}
        contents |= {f"{libraries}/libz.so.1": "zlib", f"{libraries}/libunused.so.1": "unused"}
        for name, content in contents.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(content)
        commands.answers = {
            "--list": "\tlinux-vdso.so.1 (0x7f0)\n"
            f"\tlibz.so.1 => {folder / libraries}/libz.so.1 (0x7f1)\n"
            f"\t/lib64/ld-linux.so.2 => {folder / libraries}/ld-linux.so.2 (0x7f2)\n"
        }
        return "1.22.1-9"

    monkeypatch.setattr(front_image, "CACHE", tmp_path / "a folder")
    monkeypatch.setattr(front_image, "run", commands)
    monkeypatch.setattr(debian, "unpack_with_dependencies", unpack)

    content = front_image._from_package()

    assert content.programs == {
        "bin/nginx": b"nginx",
        "lib/libz.so.1": b"zlib",
        "lib64/ld-linux.so.2": b"loader",
    }
    assert 'LABEL org.opencontainers.image.version="1.22.1-9"' in content.instructions
    assert "the package nginx 1.22.1-9" in capsys.readouterr().err
    assert list((tmp_path / "a folder").iterdir()) == []
