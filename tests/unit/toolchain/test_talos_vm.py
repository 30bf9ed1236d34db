"""The parts of a virtual machine's disk that are computed."""

from pathlib import Path

import pytest

from toolchain import talos_vm

DEPENDENCIES = """\
kernel/fs/xfs.ko.xz: kernel/lib/crc.ko.xz
kernel/net/nf-tables.ko.xz: kernel/net/link.ko.xz kernel/lib/crc.ko.xz
kernel/net/link.ko.xz: kernel/lib/crc.ko.xz
kernel/lib/crc.ko.xz:
kernel/lib/unused.ko.xz:
"""


def test_modules_load_after_the_modules_they_need(tmp_path: Path) -> None:
    (tmp_path / "modules.dep").write_text(DEPENDENCIES)

    order = talos_vm._closure(tmp_path, ("nf_tables", "xfs", "built_in"))

    names = [Path(path).name.partition(".")[0] for path in order]
    assert names == ["crc", "link", "nf-tables", "xfs"]


@pytest.mark.parametrize(
    ("system", "version", "is_possible"),
    [("debian", "12", True), ("debian", "13", False), ("ubuntu", "12", False)],
)
def test_other_systems_are_refused(
    monkeypatch: pytest.MonkeyPatch, system: str, version: str, *, is_possible: bool
) -> None:
    release = {"ID": system, "VERSION_ID": version}
    monkeypatch.setattr("platform.freedesktop_os_release", lambda: release)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")

    assert (talos_vm.why_impossible() == "") is is_possible
