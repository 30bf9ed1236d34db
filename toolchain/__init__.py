"""Makes a bare machine ready to run the stack: packages, engine, Pulumi, registry image.

It needs nothing but CPython's standard library, since it runs before anything is installed,
and it reaches nothing but package registries, since some machines reach nothing else.
Run `python3 -m toolchain --help`.
"""
