"""Python code by its place: an importable module, or a file.

    load("nodes.overlay:Overlay")
    load("/home/me/mirror.py:Mirror")

Every process of a graph gets at a node's class this way. The standard library alone is needed, so that the spawner
stays small.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.machinery
import importlib.util
import os
import sys
from types import ModuleType
from typing import Any

SUFFIX = ".py"


def load(path: str) -> Any:
    """What `module:name` or `/path/to/file.py:name` stands for. Raises what the import raises; AttributeError."""
    place, _, name = path.rpartition(":")
    return getattr(load_module(place), name)


def load_module(place: str) -> ModuleType:
    """The module of that name, or the one in that file; of a file, each process runs the code once."""
    if not place.endswith(SUFFIX):
        return importlib.import_module(place)
    file = os.path.realpath(place)
    folder = os.path.dirname(file)
    if folder not in sys.path:
        sys.path.append(folder)  # for what lies beside it; at the end, so that it hides nothing that is installed
    stem = os.path.basename(file).removesuffix(SUFFIX)
    if _is_found(stem, file):
        return importlib.import_module(stem)
    # `json.py`, `my nodes.py`: by a name of its own, which nobody else can import it by.
    name = f"{stem} ({hashlib.sha256(os.fsencode(file)).hexdigest()[:12]})"
    if name in sys.modules:
        return sys.modules[name]
    # What a link leads to need not end in `.py`: the loader is named, in place of one that goes by the suffix.
    loader = importlib.machinery.SourceFileLoader(name, file)
    spec = importlib.util.spec_from_file_location(name, file, loader=loader)
    assert spec is not None, "it has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _is_found(name: str, file: str) -> bool:
    """Whether `import name` gives the module in that file."""
    if not name.isidentifier():
        return False
    if name in sys.modules:
        return getattr(sys.modules[name], "__file__", None) == file
    importlib.invalidate_caches()  # it may have been written just now
    found = importlib.machinery.PathFinder.find_spec(name)
    return found is not None and found.origin == file
