import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from talos_registry_cache.talos import kubeconfig
from talos_registry_cache.talos.errors import TakenError, TalosError


def of_cluster(folder: Path, name: str = "demo", port: int = 6443) -> Path:
    """Write a kubeconfig like talosctl's."""
    path = folder / f"{name}-{port}"
    user = f"admin@{name}"
    server, access = f"https://127.0.0.1:{port}", {"client-key-data": "s3cret"}
    path.write_text(config(name, server, user, access, user))
    return path


def config(name: str, server: str, user: str, access: object, context: str) -> str:
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "preferences": {"colors": True},
            "clusters": [{"name": name, "cluster": {"server": server}}],
            "contexts": [{"name": context, "context": {"cluster": name, "user": user}}],
            "users": [{"name": user, "user": access}],
            "current-context": context,
        }
    )


def write_own(path: Path) -> Mapping[str, Any]:
    """Write the user's own kubeconfig."""
    path.write_text(config("prod", "https://prod", "me", {"token": "t"}, "prod"))
    return content(path)


def content(path: Path) -> dict[str, Any]:
    loaded = yaml.safe_load(path.read_text())
    assert isinstance(loaded, dict)
    return loaded


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "home" / ".kube"
    folder.mkdir(parents=True)
    return folder / "config"


def test_a_cluster_is_merged_into_a_new_kubeconfig_once(tmp_path: Path) -> None:
    target = tmp_path / "new" / "config"
    kubeconfig.merge(of_cluster(tmp_path), target)
    before = target.read_text(), target.stat().st_ino
    kubeconfig.merge(of_cluster(tmp_path), target)

    assert (target.read_text(), target.stat().st_ino) == before
    merged = content(target)
    assert merged["current-context"] == "admin@demo"
    assert merged["clusters"][0]["cluster"]["server"] == "https://127.0.0.1:6443"
    assert target.stat().st_mode & 0o777 == 0o600


def test_other_entries_stay_first_and_removing_restores_the_kubeconfig(
    tmp_path: Path, target: Path
) -> None:
    own = write_own(target)
    kubeconfig.merge(of_cluster(tmp_path), target)

    merged = content(target)
    assert merged["current-context"] == "prod"
    assert merged["preferences"] == own["preferences"]
    assert [user["name"] for user in merged["users"]] == ["me", "admin@demo"]
    kubeconfig.remove(target, "demo")
    assert content(target) == own


def test_a_recreated_cluster_replaces_its_entries(tmp_path: Path, target: Path) -> None:
    kubeconfig.merge(of_cluster(tmp_path, port=1111), target)
    kubeconfig.merge(of_cluster(tmp_path, port=2222), target)

    servers = [cluster["cluster"]["server"] for cluster in content(target)["clusters"]]
    assert servers == ["https://127.0.0.1:2222"]


def test_a_removed_cluster_is_no_longer_the_current_context(tmp_path: Path, target: Path) -> None:
    kubeconfig.remove(target, "demo")
    assert not target.exists()
    for name in ("demo", "other"):
        kubeconfig.merge(of_cluster(tmp_path, name), target)
    kubeconfig.remove(target, "demo")
    kubeconfig.remove(target, "unknown")

    left = content(target)
    assert left["current-context"] == ""
    assert [context["name"] for context in left["contexts"]] == ["admin@other"]


def test_the_users_own_entry_of_the_same_name_is_left_alone(tmp_path: Path, target: Path) -> None:
    of_cluster(tmp_path).rename(target)
    before = target.read_text()

    with pytest.raises(TakenError, match="already has demo in its clusters; rename"):
        kubeconfig.merge(of_cluster(tmp_path, port=2222), target)
    kubeconfig.remove(target, "demo")

    assert target.read_text() == before
    assert list(target.parent.iterdir()) == [target]


def test_a_symbolic_link_stays_a_link(tmp_path: Path, target: Path) -> None:
    real = tmp_path / "elsewhere"
    write_own(real)
    target.symlink_to(real)
    kubeconfig.merge(of_cluster(tmp_path), target)

    assert target.is_symlink()
    assert len(content(real)["users"]) == 2


def test_clusters_can_be_merged_at_the_same_time(tmp_path: Path, target: Path) -> None:
    names = [f"c{number}" for number in range(8)]
    sources = [of_cluster(tmp_path, name) for name in names]
    threads = [threading.Thread(target=kubeconfig.merge, args=(s, target)) for s in sources]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(cluster["name"] for cluster in content(target)["clusters"]) == names


def test_a_locked_kubeconfig_is_an_error(
    tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubeconfig, "LOCK_WITHIN_S", 0.1)
    lock = target.with_name("config.lock")
    lock.touch()

    with pytest.raises(TalosError, match=f"another program is writing .* remove {lock}"):
        kubeconfig.merge(of_cluster(tmp_path), target)
    assert lock.exists()


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("a: b: c", "cannot read the kubeconfig"),
        ("- a list", "is not a kubeconfig"),
        ("just a text", "is not a kubeconfig"),
        ("#" * (kubeconfig.SIZE_LIMIT + 1), "is larger than 4194304 bytes"),
    ],
    ids=["no YAML", "list", "text", "too large"],
)
def test_a_file_that_is_no_kubeconfig_is_an_error_and_left_unchanged(
    tmp_path: Path, target: Path, text: str, error: str
) -> None:
    target.write_text(text)

    with pytest.raises(TalosError, match=error):
        kubeconfig.merge(of_cluster(tmp_path), target)
    assert target.read_text() == text


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TalosError, match="cannot write the kubeconfig"):
        kubeconfig.merge(of_cluster(tmp_path), tmp_path / "file" / "config")
