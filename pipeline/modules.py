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
_beside: dict[str, str] = {}
"""Modules that files here have found beside them, and the folder of each."""


def load(path: str) -> Any:
    """What `module:name` or `/path/to/file.py:name` stands for. Raises what the import raises; AttributeError."""
    place, _, name = path.rpartition(":")
    return getattr(load_module(place), name)


def load_module(place: str) -> ModuleType:
    """The module of that name, or the one in that file; of a file, each process runs the code once."""
    if not place.endswith(SUFFIX):
        return importlib.import_module(place)
    file = os.path.realpath(place)
    stem = os.path.basename(file).removesuffix(SUFFIX)
    # Not under its plain name: it may be that of an installed module, `display.py` or `numpy.py`.
    name = f"{stem} ({hashlib.sha256(os.fsencode(file)).hexdigest()[:12]})"
    if name in sys.modules:
        return sys.modules[name]
    # What a link leads to need not end in `.py`: the loader is named, in place of one that goes by the suffix.
    loader = importlib.machinery.SourceFileLoader(name, file)
    spec = importlib.util.spec_from_file_location(name, file, loader=loader)
    assert spec is not None, "it has a loader"
    module = importlib.util.module_from_spec(spec)
    folder = os.path.dirname(file)
    if folder not in sys.path:
        sys.path.append(folder)  # what lies beside it; at the end, so that it hides nothing that is installed
    sys.modules[name] = module
    # Python knows a module by its name alone: this file shall not take what another one has found beside itself.
    theirs = {
        n: sys.modules.pop(n) for n, at in _beside.items() if at != folder and n in sys.modules and _in(folder, n)
    }
    before = set(sys.modules)
    try:
        loader.exec_module(module)
        for other in theirs.keys() & sys.modules.keys():
            raise ImportError(f"there is a module '{other}' in {folder} and in {_beside[other]}: rename one of them")
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        sys.modules.update(theirs)
    for other in sys.modules.keys() - before:
        if (found := _in(folder, other)) and found == getattr(sys.modules[other], "__file__", None):
            _beside[other] = folder
    return module


def _in(folder: str, name: str) -> str | None:
    """The file of the module of that name in a folder; None where there is none."""
    found = None if "." in name else importlib.machinery.PathFinder.find_spec(name, [folder])
    return found and found.origin
