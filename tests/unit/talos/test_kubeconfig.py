import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from talos_registry_cache.talos import kubeconfig
from talos_registry_cache.talos.errors import TakenError, TalosError


def of_cluster(folder: Path, name: str = "demo", port: int = 6443) -> Path:
    """A kubeconfig as talosctl writes it."""
    path = folder / f"{name}-{port}"
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": name, "cluster": {"server": f"https://127.0.0.1:{port}"}}],
                "contexts": [
                    {
                        "name": f"admin@{name}",
                        "context": {"cluster": name, "user": f"admin@{name}"},
                    }
                ],
                "users": [{"name": f"admin@{name}", "user": {"client-key-data": "s3cret"}}],
                "current-context": f"admin@{name}",
            }
        )
    )
    return path


def write_own(path: Path) -> Mapping[str, Any]:
    """Write a kubeconfig of the user's own."""
    own = {
        "apiVersion": "v1",
        "kind": "Config",
        "preferences": {"colors": True},
        "clusters": [{"name": "prod", "cluster": {"server": "https://prod"}}],
        "contexts": [{"name": "prod", "context": {"cluster": "prod", "user": "me"}}],
        "users": [{"name": "me", "user": {"token": "t"}}],
        "current-context": "prod",
    }
    path.write_text(yaml.safe_dump(own))
    return own


def content(path: Path) -> dict[str, Any]:
    loaded = yaml.safe_load(path.read_text())
    assert isinstance(loaded, dict)
    return loaded


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "home" / ".kube" / "config"


def test_a_cluster_is_merged_into_a_new_kubeconfig(tmp_path: Path, target: Path) -> None:
    kubeconfig.merge(of_cluster(tmp_path), target)

    merged = content(target)
    assert merged["current-context"] == "admin@demo"
    assert merged["clusters"][0]["cluster"]["server"] == "https://127.0.0.1:6443"
    assert target.stat().st_mode & 0o777 == 0o600


def test_other_entries_stay_and_come_first(tmp_path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True)
    own = write_own(target)
    kubeconfig.merge(of_cluster(tmp_path), target)

    merged = content(target)
    assert merged["current-context"] == "prod"
    assert merged["preferences"] == own["preferences"]
    assert [user["name"] for user in merged["users"]] == ["me", "admin@demo"]


def test_removing_it_restores_the_kubeconfig(tmp_path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True)
    own = write_own(target)
    kubeconfig.merge(of_cluster(tmp_path), target)
    kubeconfig.remove(target, "demo")

    assert content(target) == own


def test_merging_again_changes_nothing(tmp_path: Path, target: Path) -> None:
    kubeconfig.merge(of_cluster(tmp_path), target)
    before = target.read_text(), target.stat().st_ino
    kubeconfig.merge(of_cluster(tmp_path), target)

    assert (target.read_text(), target.stat().st_ino) == before


def test_a_recreated_cluster_replaces_its_entries(tmp_path: Path, target: Path) -> None:
    kubeconfig.merge(of_cluster(tmp_path, port=1111), target)
    kubeconfig.merge(of_cluster(tmp_path, port=2222), target)

    servers = [cluster["cluster"]["server"] for cluster in content(target)["clusters"]]
    assert servers == ["https://127.0.0.1:2222"]


def test_a_kubeconfig_that_is_too_large_is_refused(tmp_path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(b"#" * (kubeconfig.SIZE_LIMIT + 1))

    with pytest.raises(TalosError, match="is larger than 4194304 bytes"):
        kubeconfig.merge(of_cluster(tmp_path), target)


def test_a_removed_cluster_is_no_longer_the_current_context(tmp_path: Path, target: Path) -> None:
    kubeconfig.merge(of_cluster(tmp_path), target)
    kubeconfig.merge(of_cluster(tmp_path, "other"), target)
    kubeconfig.remove(target, "demo")

    left = content(target)
    assert left["current-context"] == ""
    assert [context["name"] for context in left["contexts"]] == ["admin@other"]


def test_the_user_s_own_entry_of_the_same_name_is_left_alone(tmp_path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True)
    of_cluster(tmp_path).rename(target)
    before = target.read_text()

    with pytest.raises(TakenError, match="already has demo in its clusters; rename"):
        kubeconfig.merge(of_cluster(tmp_path, port=2222), target)
    kubeconfig.remove(target, "demo")

    assert target.read_text() == before
    assert list(target.parent.iterdir()) == [target]


def test_removing_a_cluster_that_was_not_merged_changes_nothing(
    tmp_path: Path, target: Path
) -> None:
    kubeconfig.remove(target, "demo")
    assert not target.exists()

    kubeconfig.merge(of_cluster(tmp_path), target)
    kubeconfig.remove(target, "other")
    assert len(content(target)["clusters"]) == 1


def test_a_symbolic_link_stays_a_link(tmp_path: Path, target: Path) -> None:
    real = tmp_path / "elsewhere"
    write_own(real)
    target.parent.mkdir(parents=True)
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
    target.parent.mkdir(parents=True)
    lock = target.with_name("config.lock")
    lock.touch()

    with pytest.raises(TalosError, match=f"another program is writing .* remove {lock}"):
        kubeconfig.merge(of_cluster(tmp_path), target)
    assert lock.exists()


@pytest.mark.parametrize("text", ["a: b: c", "- a list", "just a text"])
def test_another_file_is_an_error_and_left_unchanged(
    tmp_path: Path, target: Path, text: str
) -> None:
    target.parent.mkdir(parents=True)
    target.write_text(text)

    with pytest.raises(TalosError, match="kubeconfig"):
        kubeconfig.merge(of_cluster(tmp_path), target)
    assert target.read_text() == text


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TalosError, match="cannot write the kubeconfig"):
        kubeconfig.merge(of_cluster(tmp_path), tmp_path / "file" / "config")
