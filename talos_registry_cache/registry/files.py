"""Reading of files that users name, up to a size limit."""

import errno
import stat
from pathlib import Path
from typing import BinaryIO

LIST_LIMIT = 4 << 20
"""Maximum size of a list of images in bytes, enough for some 50,000."""

SMALL_LIMIT = 1 << 20
"""Maximum size of a certificate file in bytes."""


def read_text(path: Path, limit: int, *, regular: bool = False) -> str:
    """Read a UTF-8 file.

    Args:
        path: the file; pipes are allowed.
        limit: the maximum size in bytes.
        regular: whether to refuse pipes and devices, which may never end.

    Raises:
        OSError: the file cannot be read, or is too large.
        UnicodeDecodeError: the file is not UTF-8.
    """
    try:
        if regular and not stat.S_ISREG(path.stat().st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        with path.open("rb") as file:
            return text_of(file, limit)
    except UnicodeDecodeError:
        raise
    except ValueError as error:
        # The path contains a NUL character.
        raise OSError(errno.EINVAL, str(error)) from None


def text_of(file: BinaryIO, limit: int) -> str:
    """Read the rest of an open UTF-8 file.

    Args:
        file: the file.
        limit: the maximum size in bytes.

    Raises:
        OSError: it cannot be read, or is too large.
        UnicodeDecodeError: it is not UTF-8.
    """
    content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"it is larger than {limit} bytes")
    return content.decode("utf-8")
