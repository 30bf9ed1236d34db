"""Files of other people, such as lists of images: read no further than a limit."""

import errno
import stat
from pathlib import Path

LIST_LIMIT = 4 << 20
"""Largest list of images in bytes: some 50,000 of them."""

SMALL_LIMIT = 1 << 20
"""Largest file of credentials or certificates in bytes."""


def read_text(path: Path, limit: int, *, regular: bool = False) -> str:
    """Read a file in UTF-8.

    Args:
        path: the file; it may be a pipe.
        limit: how many bytes it may have.
        regular: whether it must be a regular file, since nobody may ever write to a pipe.

    Raises:
        OSError: it cannot be read, or is larger.
        UnicodeDecodeError: it is not in UTF-8.
    """
    try:
        if regular and not stat.S_ISREG(path.stat().st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except ValueError as error:
        # No name of a file has a NUL in it.
        raise OSError(errno.EINVAL, str(error)) from None
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"it is larger than {limit} bytes")
    return content.decode("utf-8")
