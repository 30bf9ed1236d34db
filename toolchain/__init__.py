"""Prepares a machine to run a stack: Python packages, container engine, Pulumi, registry image.

It uses only the standard library, since it runs before anything is installed, and it downloads only
from package registries, since some machines can reach nothing else.
Run `python3 -m toolchain --help`.
"""
