"""Images that nodes cannot pull, as Talos and the container runtime of a node log them."""

import re

# From internal/pkg/containers/image of Talos, and containerd.
FAILED = re.compile(r'failed to pull image "(?P<image>[^"]+)": (?P<reason>.+)')
LAST_CAUSE = "failed to do request: "
# The node gave up waiting and tries again, or lists the causes in lines of their own.
NO_CAUSE = ("context canceled", "occurred:")
LONGEST_REASON = 300


def find(log: str) -> dict[str, str]:
    """Find the images that a node could not pull.

    Args:
        log: the log.

    Returns:
        the reason of the last failure, by the reference of the image.
    """
    return {
        found["image"]: found["reason"].rpartition(LAST_CAUSE)[2].strip()[:LONGEST_REASON]
        for found in FAILED.finditer(log)
        if not found["reason"].rstrip().endswith(NO_CAUSE)
    }


def describe(node: str, image: str, reason: str) -> str:
    """Describe a failure in one line."""
    return f"{node} cannot pull {image}: {reason}"
