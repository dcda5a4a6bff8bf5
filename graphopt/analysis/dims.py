"""Dimensions as integers or symbolic integers in a canonical form.

A :data:`Dim` is a plain ``int`` or a :class:`Sym`: an integer-linear combination of products of atoms. An atom is a
named unknown or an opaque function (floor division, maximum, minimum, broadcast) of other dims. Equal computations
give equal objects: ``(h - 1) // 2 + 1 == (h + 1) // 2``, ``(h // 2 + 1) // 2 == (h + 2) // 4``. Two unequal forms are
merely *not known* to be equal.

A named atom is at least 0, which is all that is known of a tensor's extent: a key/value cache may well be empty.
Every identity used here is exact on all integers, or on all those where the ONNX operator at hand does not fail.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias, Union

__all__ = [
    "Atom",
    "Dim",
    "Sym",
    "broadcast",
    "ceildiv",
    "evaluate",
    "exact_div",
    "floordiv",
    "is_multiple",
    "is_one",
    "lower_bound",
    "maximum",
    "minimum",
    "product",
    "symbol",
    "upper_bound",
]

Dim: TypeAlias = Union[int, "Sym"]
Monomial: TypeAlias = tuple["Atom", ...]  # sorted, with repetition; () is the constant

_MAX_TERMS: Final = 32  # beyond, a sum or product becomes one opaque atom: cost stays linear in the graph
_MAX_DEPTH: Final = 32  # beyond, an atom keeps its identity and forgets its structure


class Atom(str):
    """An indivisible unknown. As a string it is its own canonical key, so comparing and sorting run at C speed."""

    __slots__ = ("args", "depth", "kind", "label", "low")

    kind: str  # "name" | "floordiv" | "max" | "min" | "broadcast" | "add" | "mul"
    args: tuple[Dim, ...]  # empty for a name, and for an atom too deep to be kept whole
    low: int | None  # a proven lower bound; None when there is none
    depth: int
    label: str

    @classmethod
    def named(cls, key: str, label: str, low: int | None) -> Atom:
        atom = cls(key)
        atom.kind, atom.args, atom.low, atom.depth, atom.label = "name", (), low, 0, label
        return atom

    @classmethod
    def opaque(cls, kind: str, args: tuple[Dim, ...], low: int | None) -> Atom:
        """The atom ``kind(*args)``; commutative kinds must come with their arguments sorted."""
        # A digest keeps keys of one length however deep the expression, and their order the same in every process.
        text = repr((kind, [arg if isinstance(arg, int) else arg.terms for arg in args]))
        atom = cls("\0" + hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest())
        atom.kind, atom.low = kind, low
        atom.depth = 1 + max(_depth(arg) for arg in args)
        atom.args = args if atom.depth <= _MAX_DEPTH else ()
        atom.label = ""
        return atom

    def describe(self) -> str:
        """A readable rendering, for messages only."""
        if self.kind == "name":
            return self.label
        if not self.args:
            return f"{self.kind}(…)"
        if self.kind == "floordiv":
            return "({})//({})".format(*self.args)
        return f"{self.kind}({', '.join(map(str, self.args))})"


class Sym:
    """An immutable symbolic integer, hashable, equal to another when both have the same canonical form."""

    __slots__ = ("_hash", "_low", "terms")

    terms: tuple[tuple[Monomial, int], ...]  # sorted by monomial, no zero coefficient, never a constant alone

    def __init__(self, terms: tuple[tuple[Monomial, int], ...]) -> None:
        self.terms = terms
        self._hash = hash(terms)
        self._low: int | str | None = "unset"

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Sym) and self._hash == other._hash and self.terms == other.terms)

    def __repr__(self) -> str:
        return f"Sym({self})"

    def __str__(self) -> str:
        parts = []
        for monomial, factor in sorted(self.terms, key=lambda term: (not term[0], term[0])):
            sign = "-" if factor < 0 else "+"
            names = [atom.describe() for atom in monomial]
            if abs(factor) != 1 or not names:
                names.insert(0, str(abs(factor)))
            parts.append(f" {sign} {'*'.join(names)}")
        text = "".join(parts)
        return text.removeprefix(" + ") if text.startswith(" + ") else "-" + text.removeprefix(" - ")

    def __add__(self, other: Dim) -> Dim:
        if isinstance(other, int) and other == 0:
            return self
        total = dict(self.terms)
        for monomial, factor in _terms(other):
            total[monomial] = total.get(monomial, 0) + factor
        return _build(total, "add", self, other)

    __radd__ = __add__

    def __neg__(self) -> Dim:
        return Sym(tuple([(monomial, -factor) for monomial, factor in self.terms]))

    def __sub__(self, other: Dim) -> Dim:
        return self + -other

    def __rsub__(self, other: Dim) -> Dim:
        return -self + other

    def __mul__(self, other: Dim) -> Dim:
        if isinstance(other, int):
            if other in (0, 1):
                return self if other else 0
            return Sym(tuple([(monomial, factor * other) for monomial, factor in self.terms]))
        total: dict[Monomial, int] = {}
        for left, left_factor in self.terms:
            for right, right_factor in other.terms:
                monomial = tuple(sorted(left + right))
                total[monomial] = total.get(monomial, 0) + left_factor * right_factor
        return _build(total, "mul", self, other)

    __rmul__ = __mul__

    def __floordiv__(self, other: Dim) -> Dim:
        return floordiv(self, other)

    def __rfloordiv__(self, other: Dim) -> Dim:
        return floordiv(other, self)

    def __mod__(self, other: Dim) -> Dim:
        return self - other * floordiv(self, other)

    def __rmod__(self, other: Dim) -> Dim:
        return other - self * floordiv(other, self)

    @property
    def low(self) -> int | None:
        """The largest proven lower bound, or None."""
        if isinstance(self._low, str):
            self._low = _lower_bound(self)
        return self._low

    @property
    def atoms(self) -> frozenset[Atom]:
        """The atoms this form is made of (not those inside opaque ones)."""
        return frozenset(atom for monomial, _ in self.terms for atom in monomial)


def symbol(key: str, *, label: str = "", low: int | None = 0) -> Sym:
    """The symbol ``key``, at least ``low``; ``label`` is how messages show it."""
    return Sym((((Atom.named(key, label or key, low),), 1),))


def is_one(dim: Dim) -> bool:
    """Whether ``dim`` is provably 1."""
    return isinstance(dim, int) and dim == 1


def is_multiple(dim: Dim, of: Dim) -> bool:
    """Whether ``dim`` is provably a multiple of ``of``."""
    return exact_div(dim, of) is not None


def lower_bound(dim: Dim) -> int | None:
    """A proven lower bound, or None."""
    return dim if isinstance(dim, int) else dim.low


def upper_bound(dim: Dim) -> int | None:
    """A proven upper bound, or None."""
    if isinstance(dim, int):
        return dim
    low = lower_bound(-dim)
    return None if low is None else -low


def product(dims: Iterable[Dim]) -> Dim:
    """The product of ``dims``: the number of elements of a shape."""
    total: Dim = 1
    for dim in dims:
        total = total * dim
    return total


def floordiv(a: Dim, b: Dim) -> Dim:
    """Floor of ``a / b``; raises ZeroDivisionError for a literal zero divisor."""
    if isinstance(a, int) and isinstance(b, int):
        return a // b
    quotient = exact_div(a, b)
    if quotient is not None:
        return quotient
    if isinstance(b, int):
        return _floordiv_int(-a, -b) if b < 0 else _floordiv_int(a, b)
    low = lower_bound(a)
    positive = low is not None and low >= 0 and b.low is not None and b.low >= 0
    return _atom("floordiv", (a, b), 0 if positive else None)


def _floordiv_int(a: Dim, b: int) -> Dim:
    if b == 0:
        raise ZeroDivisionError("division of a dim by zero")
    whole: dict[Monomial, int] = {}
    rest: dict[Monomial, int] = {}
    constant, common = 0, b
    for monomial, factor in _terms(a):
        whole[monomial], remainder = divmod(factor, b)
        if not monomial:
            constant = remainder
        elif remainder:
            rest[monomial] = remainder
            common = math.gcd(common, remainder)
    total = _collect(whole)
    if not rest:
        return total
    # floor((g*x + c) / (g*d)) == floor((x + c//g) / d) for integers
    rest = {monomial: factor // common for monomial, factor in rest.items()}
    constant, divisor = constant // common, b // common
    inner = _collect(rest)
    if divisor == 1:
        return total + inner + constant
    atom = _sole_atom(inner)
    if atom is not None and atom.kind == "floordiv" and atom.args and isinstance(atom.args[1], int):
        # floor((floor(x/d) + n) / b) == floor((x + d*n) / (d*b)) for d, b > 0
        return total + floordiv(atom.args[0] + constant * atom.args[1], atom.args[1] * divisor)
    numerator = inner + constant
    low = lower_bound(numerator)
    return total + _atom("floordiv", (numerator, divisor), None if low is None else low // divisor)


def ceildiv(a: Dim, b: Dim) -> Dim:
    """Ceiling of ``a / b`` for a positive ``b``."""
    return floordiv(a + b - 1, b)


def exact_div(a: Dim, b: Dim) -> Dim | None:
    """``a / b`` when it is provably an integer (given that ``b`` is not zero), else None."""
    if isinstance(b, int):
        if b == 0:
            return None
        if isinstance(a, int):
            return a // b if a % b == 0 else None
        if any(factor % b for _, factor in a.terms):
            return None
        return Sym(tuple([(monomial, factor // b) for monomial, factor in a.terms]))
    if a == b:
        return 1
    if isinstance(a, int):
        return 0 if a == 0 else None
    return _divide_polynomial(a, b)


def _divide_polynomial(a: Sym, b: Sym) -> Dim | None:
    """Long division in graded lexicographic order; None unless the remainder is zero."""
    lead, lead_factor = min(b.terms, key=_order)
    quotient: dict[Monomial, int] = {}
    rest = dict(a.terms)
    for _ in range(_MAX_TERMS):
        monomial, factor = min(rest.items(), key=_order)
        cofactor = _remove(monomial, lead)
        if cofactor is None or factor % lead_factor:
            return None
        scale = factor // lead_factor
        quotient[cofactor] = scale
        for term, term_factor in b.terms:
            key = tuple(sorted(term + cofactor))
            left = rest.get(key, 0) - scale * term_factor
            if left:
                rest[key] = left
            else:
                rest.pop(key, None)
        if not rest:
            return _collect(quotient)
    return None


def maximum(a: Dim, b: Dim) -> Dim:
    """The larger of the two."""
    return _extremum("max", a, b)


def minimum(a: Dim, b: Dim) -> Dim:
    """The smaller of the two."""
    return _extremum("min", a, b)


def _extremum(kind: str, a: Dim, b: Dim) -> Dim:
    if a == b:
        return a
    difference = a - b
    low, high = lower_bound(difference), upper_bound(difference)
    if low is not None and low >= 0:
        return a if kind == "max" else b
    if high is not None and high <= 0:
        return b if kind == "max" else a
    args = _flatten(kind, a, b)
    lows = [lower_bound(arg) for arg in args]
    known = [low for low in lows if low is not None]
    if kind == "max":
        return _atom(kind, args, max(known, default=None))
    return _atom(kind, args, min(known) if len(known) == len(lows) else None)


def broadcast(a: Dim, b: Dim) -> Dim:
    """The extent of two axes broadcast together by NumPy's rule, given that they are compatible."""
    if a is b or a == b:
        return a
    if isinstance(a, int):
        if a != 1:
            return a
        return b
    if isinstance(b, int):
        return b if b != 1 else a
    # min(a, 512) against a: they can only be compatible when equal (or both 1)
    for this, other in ((a, b), (b, a)):
        atom = _sole_atom(this)
        caps = atom.args if atom is not None and atom.kind == "min" and other in atom.args else ()
        if caps and all(arg == other or (isinstance(arg, int) and arg > 1) for arg in caps):
            return other
    args = _flatten("broadcast", a, b)
    lows = [lower_bound(arg) for arg in args]
    known = [low for low in lows if low is not None]
    return _atom("broadcast", args, min(known) if len(known) == len(lows) else None)


def evaluate(dim: Dim, bindings: Mapping[str, int]) -> int | None:
    """The value of ``dim`` where atoms have the values of ``bindings``; None when one is missing."""
    if isinstance(dim, int):
        return dim
    total = 0
    for monomial, factor in dim.terms:
        for atom in monomial:
            value = bindings.get(atom)
            if value is None:
                value = _evaluate_atom(atom, bindings)
            if value is None:
                return None
            factor *= value
        total += factor
    return total


def _evaluate_atom(atom: Atom, bindings: Mapping[str, int]) -> int | None:
    if not atom.args:
        return None
    values = []
    for arg in atom.args:
        value = evaluate(arg, bindings)
        if value is None:
            return None
        values.append(value)
    match atom.kind:
        case "floordiv":
            return values[0] // values[1] if values[1] else None
        case "max":
            return max(values)
        case "min":
            return min(values)
        case "broadcast":
            return next((value for value in values if value != 1), 1)
        case "add":
            return sum(values)
        case _:
            return math.prod(values)


def _terms(dim: Dim) -> tuple[tuple[Monomial, int], ...]:
    return (((), dim),) if isinstance(dim, int) else dim.terms


def _build(total: dict[Monomial, int], kind: str, a: Dim, b: Dim) -> Dim:
    if len(total) > _MAX_TERMS:
        lows = lower_bound(a), lower_bound(b)
        positive = lows[0] is not None and lows[1] is not None and min(lows[0], lows[1]) >= 0
        return _atom(kind, tuple(sorted((a, b), key=_sort_key)), 0 if positive else None)
    return _collect(total)


def _collect(total: dict[Monomial, int]) -> Dim:
    terms = sorted([term for term in total.items() if term[1]])
    if not terms:
        return 0
    if len(terms) == 1 and not terms[0][0]:
        return terms[0][1]
    return Sym(tuple(terms))


def _atom(kind: str, args: tuple[Dim, ...], low: int | None) -> Sym:
    return Sym((((Atom.opaque(kind, args, low),), 1),))


def _sole_atom(dim: Dim) -> Atom | None:
    if isinstance(dim, int) or len(dim.terms) != 1:
        return None
    monomial, factor = dim.terms[0]
    return monomial[0] if factor == 1 and len(monomial) == 1 else None


def _flatten(kind: str, *dims: Dim) -> tuple[Dim, ...]:
    """Arguments of an associative, commutative, idempotent function: nested ones opened, unique, sorted."""
    args: set[Dim] = set()
    for dim in dims:
        atom = _sole_atom(dim)
        nested = atom is not None and atom.kind == kind and 0 < len(atom.args) < _MAX_TERMS
        args.update(atom.args if atom is not None and nested else (dim,))
    return tuple(sorted(args, key=_sort_key))


def _sort_key(dim: Dim) -> tuple[tuple[Monomial, int], ...]:
    return _terms(dim)


def _order(term: tuple[Monomial, int]) -> tuple[int, Monomial]:
    return -len(term[0]), term[0]


def _remove(monomial: Monomial, factor: Monomial) -> Monomial | None:
    left = list(monomial)
    for atom in factor:
        if atom not in left:
            return None
        left.remove(atom)
    return tuple(left)


def _depth(dim: Dim) -> int:
    if isinstance(dim, int):
        return 0
    return max(atom.depth for monomial, _ in dim.terms for atom in monomial)


def _lower_bound(dim: Sym) -> int | None:
    total = 0
    for monomial, factor in dim.terms:
        lows = [atom.low for atom in monomial]
        if lows and factor < 0:
            return None
        for low in lows:
            if low is None or (low < 0 and len(lows) > 1):
                return None
            factor *= low
        total += factor
    return total
