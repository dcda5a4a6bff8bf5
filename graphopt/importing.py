"""Functions of the user's own, named as ``module:function``."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable
from typing import Any, Final

from graphopt.errors import UsageError

__all__ = ["imported", "names_function"]

_SPEC: Final = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def names_function(spec: str) -> bool:
    """Whether a text has the form ``package.module:function``, and no file of that name is there."""
    return _SPEC.fullmatch(spec) is not None and not os.path.exists(spec)


def imported(spec: str) -> Callable[..., Any]:
    """The function of ``module:function``. **Importing runs the module**, which may lie in the current folder.

    Raises:
        UsageError: It cannot be imported, or is no function.
    """
    module, _, name = spec.partition(":")
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"{spec} cannot be imported: {error}") from error
    finally:
        sys.path.remove(here)
    if not callable(found):
        raise UsageError(f"{spec} is no function", hint="Name a function or a class.")
    function: Callable[..., Any] = found
    return function
