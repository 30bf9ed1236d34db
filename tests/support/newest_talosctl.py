"""The newest talosctl, which takes three minutes to build."""

import shutil

import pytest

from toolchain.talosctl import NEWEST

NAME = NEWEST.name
IF_BUILT = pytest.mark.skipif(
    shutil.which(NAME) is None, reason=f"only make cluster-test builds {NAME}"
)
