"""What a change would do to machines that run the base branch: the preview of a pull request.

It runs git and pulumi, and imports no other room: what it compares are two versions of the program.
"""
