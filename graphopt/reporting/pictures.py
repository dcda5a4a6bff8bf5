"""What all pictures have in common: kinds of files, looks, and the same bytes for the same figure.

matplotlib draws them; it comes with the extra ``graphopt[report]`` and is imported when a picture is wanted.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from graphopt.errors import EnvironmentProblem, UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["INK", "KINDS", "check", "drawn", "open_sides"]

KINDS: Final = ("svg", "png", "pdf")
"""What can be written."""

INK: Final = "#333333"
_RC: Final[dict[Any, Any]] = {
    "svg.hashsalt": "graphopt",
    "font.size": 8,
    "axes.edgecolor": "#999999",
    "axes.labelcolor": INK,
}


def check(path: str | os.PathLike[str]) -> str:
    """Which kind of picture a path asks for; raises now what drawing would raise later.

    Raises:
        UsageError: The ending is none of :data:`KINDS`.
        EnvironmentProblem: matplotlib cannot be imported.
    """
    kind = Path(path).suffix.lower().removeprefix(".")
    if kind not in KINDS:
        raise UsageError(f"{path} is no picture", hint=f"Let its name end in {', '.join('.' + one for one in KINDS)}.")
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise EnvironmentProblem(
            f"drawing needs matplotlib, which cannot be imported: {error}",
            hint="Install it with: pip install 'graphopt[report]'.",
        ) from error
    return kind


def drawn(make: Callable[[], Figure], kind: str) -> bytes:
    """A picture, as the contents of a file.

    Args:
        make: Draws the figure; called with the looks set.
        kind: One of :data:`KINDS`.
    """
    import matplotlib

    stream = io.BytesIO()
    date = {"svg": "Date", "pdf": "CreationDate"}.get(kind)
    with matplotlib.rc_context(_RC), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # names may be in any script
        make().savefig(stream, format=kind, dpi=150, metadata={date: None} if date else None)
    return stream.getvalue()


def open_sides(axes: Axes) -> None:
    """Leaves the frame out above and to the right."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
