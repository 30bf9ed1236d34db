"""Serves the components to Pulumi programs in other languages. Pulumi runs this as a script."""

import importlib
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent

if __name__ == "__main__":
    # The wheel has this folder within the package `talos_registry_cache`, a checkout has it beside.
    is_in_wheel = (FOLDER.parent / "__init__.py").exists()
    name = f"{FOLDER.parent.name}.{FOLDER.name}" if is_in_wheel else FOLDER.name
    # In place of this folder, whose modules are no top-level ones.
    sys.path[0] = str(FOLDER.parents[name.count(".")])
    importlib.import_module(f"{name}.package").serve()
