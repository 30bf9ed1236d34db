"""The images in what Helm and kustomize print, if this machine has them.

The toolchain does not build them: that takes minutes, and only these tests would use them.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

from talos_registry_cache.registry import declared_images
from talos_registry_cache.registry.declared_images import Found

WITHIN_S = 60
DIGEST = f"sha256:{'0' * 64}"
CHART = {
    "Chart.yaml": "{apiVersion: v2, name: app, version: 0.1.0, appVersion: '3.2'}",
    "values.yaml": f"""
image: {{registry: quay.io, repository: team/app, tag: ""}}
job: {{registry: ghcr.io, repository: team/job, tag: "1.10", digest: "{DIGEST}"}}
""",
    "templates/app.yaml": """
apiVersion: apps/v1
kind: Deployment
metadata: {name: app}
spec:
  template:
    spec:
      containers:
        - name: app
          {{- with .Values.image }}
          image: {{ .registry }}/{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
          {{- end }}
---
apiVersion: batch/v1
kind: Job
metadata: {name: job, annotations: {helm.sh/hook: post-install}}
spec:
  template:
    spec:
      containers:
        - name: job
          {{- with .Values.job }}
          image: "{{ .registry }}/{{ .repository }}:{{ .tag }}@{{ .digest }}"
          {{- end }}
""",
}
KUSTOMIZATION = {
    "kustomization.yaml": """
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [pod.yaml]
images:
  - {name: app, newName: quay.io/team/app, newTag: "1.10"}
""",
    "pod.yaml": """
apiVersion: v1
kind: Pod
metadata: {name: app}
spec: {containers: [{name: app, image: app}, {name: side, image: busybox:1.37}]}
""",
}


def printed(*command: str | Path) -> list[str]:
    """The images in the output of a program, sorted."""
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=WITHIN_S)
    found = declared_images.find(done.stdout)
    return sorted(str(one.reference) for one in found if isinstance(one, Found))


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)
    return folder


@pytest.mark.skipif(shutil.which("helm") is None, reason="helm is not installed")
def test_the_output_of_helm_has_the_tags_that_its_values_lack(tmp_path: Path) -> None:
    chart = write(tmp_path, CHART)

    assert printed("helm", "template", "demo", chart) == [
        f"ghcr.io/team/job:1.10@{DIGEST}",
        "quay.io/team/app:3.2",
    ]


@pytest.mark.skipif(shutil.which("kustomize") is None, reason="kustomize is not installed")
def test_the_output_of_kustomize_has_the_replaced_images(tmp_path: Path) -> None:
    folder = write(tmp_path, KUSTOMIZATION)

    assert printed("kustomize", "build", folder) == [
        "docker.io/library/busybox:1.37",
        "quay.io/team/app:1.10",
    ]
