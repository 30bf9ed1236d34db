"""The preview of a pull request: what it would do to stacks that run the base branch.

`__main__` reads the command line, and `preview` copies both versions out of Git. `janitor` runs
`comparison` in a clean environment and removes everything it made, however it ends. `comparison`
drives Pulumi, `plan` reads Pulumi's events into a `model`, and `markdown` writes the report.
"""
