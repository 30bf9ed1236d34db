"""What can go wrong with a preview."""


class ReviewError(Exception):
    """Something that a person can put right; the message says what was found and what to do."""
