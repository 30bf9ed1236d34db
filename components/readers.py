"""Users who may read the caches: which names and passwords an htpasswd file takes."""

import re

# bcrypt ignores everything after that.
LONGEST_PASSWORD = 72

ALLOWED_NAMES = "letters, digits, dots, dashes, underscores and @, from a letter or digit on"
ALLOWED_PASSWORDS = f"1 to {LONGEST_PASSWORD} bytes, of printable characters"


def is_name(text: str) -> bool:
    """Whether a text is a valid user name."""
    return re.fullmatch(r"[A-Za-z0-9][\w.@-]*", text, re.ASCII) is not None


def is_password(text: str) -> bool:
    """Whether a text is a valid password."""
    return text.isprintable() and 0 < len(text.encode()) <= LONGEST_PASSWORD
