"""The table of operators: a function for each, by domain, name and the opset since when it means that.

A row is a function of the inputs. ONNX attributes are its keyword arguments, by name and with ONNX's default; an
absent optional input is ``None``; several outputs are a tuple. A parameter annotated ``Sizes`` takes sizes as they
are, and a keyword argument ``run`` gets the :class:`~graphopt.torch.values.Run`. Where attributes or constant inputs
call for preparation, :func:`builds` registers a function of the node that returns the function of the inputs.

Rows are top-level functions or ``functools.partial`` of such, so that modules can be copied and pickled.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, Final, TypeVar

from graphopt.torch.node import OpNode

__all__ = ["Row", "builds", "find", "host", "host_row", "op", "register"]

F = TypeVar("F", bound=Callable[..., Any])


@dataclasses.dataclass(frozen=True)
class Row:
    """What an operator means since some opset.

    Attributes:
        name: The operator.
        domain: Its domain; empty is ONNX's own.
        since: The first opset of which this is true.
        make: Gives a node's function of the inputs.
        sizes: Positions of inputs that are taken as they are; all from ``-n`` on if there is a negative one.
        wants_run: Whether the function takes ``run``.
        pure: Whether equal inputs give equal outputs whatever the mode, so that constants may be folded.
    """

    name: str
    domain: str
    since: int
    make: Callable[[OpNode], Callable[..., Any]]
    sizes: frozenset[int]
    wants_run: bool
    pure: bool


_ROWS: Final[dict[tuple[str, str], dict[int, Row]]] = {}
_HOST: Final[dict[str, Callable[..., Any]]] = {}
_SKIPPED: Final = frozenset({"consumed_inputs"})


def op(*names: str, since: int = 1, domain: str = "", pure: bool = True) -> Callable[[F], F]:
    """Registers a function of the inputs for one or more operators."""

    def note(function: F) -> F:
        parameters = list(inspect.signature(function).parameters.values())
        sizes = frozenset(place for place, one in enumerate(parameters) if "Sizes" in str(one.annotation))
        keywords = frozenset(one.name for one in parameters if one.kind is one.KEYWORD_ONLY)
        make = functools.partial(_bind, function, keywords - {"run"})
        for name in names:
            _put(Row(name, domain, since, make, sizes, "run" in keywords, pure))
        return function

    return note


def builds(
    *names: str, since: int = 1, domain: str = "", sizes: tuple[int, ...] = (), run: bool = False, pure: bool = True
) -> Callable[[F], F]:
    """Registers a function that takes the node and gives the function of the inputs."""

    def note(function: F) -> F:
        for name in names:
            _put(Row(name, domain, since, function, frozenset(sizes), run, pure))
        return function

    return note


def host(*names: str) -> Callable[[F], F]:
    """Registers what ONNX operators do to :class:`~graphopt.torch.values.Ints`.

    The function takes them and the node's attributes, and may give ``NotImplemented``: then tensors are made.
    """

    def note(function: F) -> F:
        _HOST.update(dict.fromkeys(names, function))
        return function

    return note


def register(name: str, *, domain: str = "", since: int = 1) -> Callable[[F], F]:
    """Teaches the bridge an operator, or replaces what it knows about one.

    Args:
        name: The operator.
        domain: Its domain.
        since: The first opset version of the domain for which it holds.

    Example::

        @graphopt.torch.register("Scale", domain="my.domain")
        def scale(x, *, factor=1.0):
            return x * factor
    """
    return op(name, domain=domain, since=since)


def find(node: OpNode) -> Row | None:
    """The row for a node, by its domain and opset."""
    domain = node.node.domain
    rows = _ROWS.get(("" if domain == "ai.onnx" else domain, node.node.op_type), {})
    since = max((version for version in rows if version <= node.opset), default=None)
    return None if since is None else rows[since]


def host_row(node: OpNode) -> Callable[..., Any] | None:
    """What the node does to sizes on the host, if that is known."""
    if node.node.domain not in ("", "ai.onnx"):
        return None
    function = _HOST.get(node.node.op_type)
    if function is None:
        return None
    keywords = _keywords(function)
    given = {name: node.attribute(name) for name in node.attributes}
    if not set(given) <= keywords:
        return None
    return functools.partial(function, **given) if given else function


@functools.cache
def _keywords(function: Callable[..., Any]) -> frozenset[str]:
    parameters = inspect.signature(function).parameters.values()
    return frozenset(one.name for one in parameters if one.kind is one.KEYWORD_ONLY)


def _bind(function: Callable[..., Any], known: frozenset[str], node: OpNode) -> Callable[..., Any]:
    given = {name: node.attribute(name) for name in node.attributes if name not in _SKIPPED}
    unknown = sorted(set(given) - known)
    if unknown:
        raise node.refuse(f"the torch bridge does not know the attribute '{unknown[0]}' of this operator")
    return functools.partial(function, **given) if given else function


def _put(row: Row) -> None:
    _ROWS.setdefault((row.domain, row.name), {})[row.since] = row
