"""Users see the message of every error of this project, and no traceback."""

import importlib
import pkgutil

import pulumi
import pytest

import components
import talos_registry_cache
from talos_registry_cache.cli import __main__ as command_line
from talos_registry_cache.cli.errors import ExitCode
from talos_registry_cache.errors import ReportedError
from talos_registry_cache.registry.layout import StorageError


def test_every_public_error_is_reported_by_its_message() -> None:
    for package in (talos_registry_cache, components):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith(("__main__", "apart_process")):
                importlib.import_module(module.name)
    own = [
        one
        for one in _all_below(Exception)
        if one.__module__.partition(".")[0] in {"talos_registry_cache", "components"}
        and not one.__name__.startswith("_")
    ]

    assert StorageError in own
    assert [one for one in own if not issubclass(one, ReportedError | pulumi.RunError)] == []


def _all_below(kind: type[Exception]) -> set[type[Exception]]:
    found = set(kind.__subclasses__())
    return found.union(*map(_all_below, found))


@pytest.mark.parametrize("kind", [ReportedError, StorageError])
def test_cachectl_prints_the_message_and_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: type[Exception]
) -> None:
    def fail() -> None:
        raise kind("the storage is truncated")

    monkeypatch.setattr(command_line, "app", fail)

    with pytest.raises(SystemExit) as ended:
        command_line._run()

    assert ended.value.code == ExitCode.FAILED
    assert capsys.readouterr().err == "cachectl: the storage is truncated\n"
