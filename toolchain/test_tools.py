"""The tools that only the tests use: clients, servers and a linter."""

import os
import shutil
from contextlib import suppress

from toolchain import golang, other_engines, registry_image, talos_node, talosctl
from toolchain.report import SetupError, run, step

ACTIONLINT = golang.Program(name="actionlint", package="github.com/rhysd/actionlint/cmd/actionlint")
CONFORMANCE = golang.Program(
    name="oci-conformance", package="github.com/opencontainers/distribution-spec/conformance"
)
COSIGN = golang.Program(name="cosign", package="github.com/sigstore/cosign/v3/cmd/cosign")
MINIO = golang.Program(name="minio", package="github.com/minio/minio")
# A registry with the referrers API, which distribution does not have.
REFERRERS = golang.Program(name="referrers-registry", package=".")
# Only Docker's service discovery; the others would be most of the program.
PROMETHEUS = golang.Program(
    name="prometheus",
    package="github.com/prometheus/prometheus/cmd/prometheus",
    tags="remove_all_sd,enable_moby_sd",
)
# Pulumi language hosts for the examples, from the last modules that have them, and a replacement
# for `pulumi package add` with TypeScript, for which that host is too old.
YAML_HOST = golang.Program(
    name="pulumi-language-yaml",
    package="github.com/pulumi/pulumi-yaml/cmd/pulumi-language-yaml",
)
NODEJS_HOST = golang.Program(
    name="pulumi-language-nodejs",
    package="github.com/pulumi/pulumi/sdk/v3/nodejs/cmd/pulumi-language-nodejs",
)
NODEJS_SDK = golang.Program(name="pulumi-sdk-nodejs", package=".")
# Packages by a program that they install.
PACKAGES = {
    "ctr": "containerd",
    "gcc": "gcc libc6-dev",
    "ip": "iproute2",
    "npm": "npm",
    "skopeo": "skopeo",
}


def ensure() -> None:
    """Install or build the test tools that are missing.

    Raises:
        SetupError: one is missing and cannot be installed.
    """
    needed = " ".join(package for tool, package in PACKAGES.items() if not shutil.which(tool))
    missing = sorted(needed.split())
    if missing:
        if not shutil.which("apt-get") or os.geteuid() != 0:
            raise SetupError(f"the tests need these packages: {', '.join(missing)}; install them")
        with step(f"test tools: apt-get install {' '.join(missing)}"):
            run(["apt-get", "update", "--quiet=2"])
            run(["apt-get", "install", "--quiet=2", "--yes", "--no-install-recommends", *missing])
    programs = (
        registry_image.DEFAULT, talosctl.CURRENT, talosctl.CLASSIC, ACTIONLINT, CONFORMANCE, COSIGN,
        MINIO, PROMETHEUS, REFERRERS, YAML_HOST, NODEJS_HOST, NODEJS_SDK,
    )  # fmt: skip
    for program in programs:
        golang.ensure(program)
    talos_node.ensure(talos_node.MACHINED_1_14)
    # Tests of these engines are skipped where there are no such packages.
    with suppress(SetupError):
        other_engines.ensure()
