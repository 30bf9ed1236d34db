"""What the tests use beside the stack's own needs: clients, servers, a linter, and more."""

import os
import shutil

from toolchain import golang, registry_image, talosctl
from toolchain.report import SetupError, run, step

ACTIONLINT = golang.Program(name="actionlint", package="github.com/rhysd/actionlint/cmd/actionlint")
MINIO = golang.Program(name="minio", package="github.com/minio/minio")
# Of the ways to find targets, that by DNS alone; the others would be most of the program.
PROMETHEUS = golang.Program(
    name="prometheus",
    package="github.com/prometheus/prometheus/cmd/prometheus",
    tags="remove_all_sd,enable_dns_sd",
)
# Pulumi's language hosts for the examples, from the last modules that have them; and what `pulumi
# package add` does for TypeScript, for which that host is too old.
YAML_HOST = golang.Program(
    name="pulumi-language-yaml",
    package="github.com/pulumi/pulumi-yaml/cmd/pulumi-language-yaml",
)
NODEJS_HOST = golang.Program(
    name="pulumi-language-nodejs",
    package="github.com/pulumi/pulumi/sdk/v3/nodejs/cmd/pulumi-language-nodejs",
)
NODEJS_SDK = golang.Program(name="pulumi-sdk-nodejs", package=".")
PACKAGES = {"ctr": "containerd", "ip": "iproute2", "npm": "npm"}


def ensure() -> None:
    """Make sure of the tools that the tests run.

    Raises:
        SetupError: one is missing and cannot be installed here.
    """
    missing = sorted({package for tool, package in PACKAGES.items() if not shutil.which(tool)})
    if missing:
        if not shutil.which("apt-get") or os.geteuid() != 0:
            raise SetupError(f"the tests need {', '.join(missing)}: install them")
        with step(f"tools of the tests: apt-get install {' '.join(missing)}"):
            run(["apt-get", "update", "--quiet=2"])
            run(["apt-get", "install", "--quiet=2", "--yes", "--no-install-recommends", *missing])
    programs = (
        registry_image.DEFAULT, talosctl.CURRENT, talosctl.CLASSIC, ACTIONLINT, MINIO, PROMETHEUS,
        YAML_HOST, NODEJS_HOST, NODEJS_SDK,
    )  # fmt: skip
    for program in programs:
        golang.ensure(program)
