"""Options of losses: fields of a dataclass, and how specs give them.

``name:option=value:option=value``, joined by ``+``. A colon that no ``option=`` follows belongs to the value before it,
as in the tensor names ``logits:0``; a ``+`` that no letter follows belongs to a number, as in ``1e+2``.
"""

from __future__ import annotations

import dataclasses
import math
import re
import typing
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final, Literal, TypeVar

from torch import nn

from graphopt.errors import UsageError
from graphopt.pipeline.spec import close_match

__all__ = ["Configured", "configured", "option", "split"]

_PLUS: Final = re.compile(r"\+(?=\s*[A-Za-z])")
_SWITCH: Final = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}
_WORDS: Final = {bool: "true or false", int: "an integer", float: "a number"}

C = TypeVar("C", bound="Configured")


def option(default: Any, *, above: float | None = None, least: float | None = None, most: float | None = None) -> Any:
    """A field, with the range of its values.

    Args:
        default: Its value if it is not given.
        above: It must be larger.
        least: It must not be smaller.
        most: It must not be larger.
    """
    return dataclasses.field(default=default, metadata={"above": above, "least": least, "most": most})


@dataclasses.dataclass(eq=False, kw_only=True)
class Configured(nn.Module):
    """A module whose dataclass fields are its options.

    Attributes:
        name: What it is called in specs.
        noun: What it is, in messages.

    Raises:
        UsageError: An option is out of its range.
    """

    name: ClassVar[str]
    noun: ClassVar[str]

    def __post_init__(self) -> None:
        super().__init__()
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            problem = _problem(value, field.metadata)
            if problem:
                raise UsageError(
                    f"option '{_dashed(field.name)}' of {self.noun} '{self.name}' cannot be {value}", hint=problem
                )


def split(spec: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Takes a sum of specs apart into names and raw options (keys with underscores).

    Raises:
        UsageError: A part that is no option, or one given twice.
    """
    for term in _PLUS.split(spec):
        name, *parts = term.strip().split(":")
        raw: dict[str, str] = {}
        last = ""
        for part in parts:
            key, sign, text = part.partition("=")
            if not sign:
                if not last:
                    raise UsageError(
                        f"'{part}' in '{term.strip()}' is no option",
                        hint="Write name:option=value, as in kd:temperature=4.",
                    )
                raw[last] += f":{part}"
                continue
            last = key.strip().replace("-", "_")
            if last in raw:
                raise UsageError(f"option '{_dashed(last)}' is given twice in '{term.strip()}'")
            raw[last] = text.strip()
        yield name.strip(), raw


def configured(table: Mapping[str, type[C]], name: str, raw: Mapping[str, str], defaults: Mapping[str, Any]) -> C:
    """Makes what a name of a table stands for.

    Args:
        table: Classes by name.
        name: One of them.
        raw: Texts of its options.
        defaults: Values of options that are not given, as far as the class has them.

    Raises:
        UsageError: No such name or option, or a value that the option does not take.
    """
    noun = next(iter(table.values())).noun
    if name not in table:
        raise UsageError(f"there is no {noun} '{name}'", hint=close_match(name, table))
    made = table[name]
    types = typing.get_type_hints(made)
    known = [field.name for field in dataclasses.fields(made)]
    values = {key: value for key, value in defaults.items() if key in known}
    for key, text in raw.items():
        if key not in known:
            raise UsageError(
                f"{noun} '{name}' has no option '{_dashed(key)}'", hint=close_match(_dashed(key), map(_dashed, known))
            )
        try:
            values[key] = _convert(text, types[key])
        except (ValueError, KeyError):
            raise UsageError(
                f"option '{_dashed(key)}' of {noun} '{name}' cannot be '{text}'", hint=f"It takes {_takes(types[key])}."
            ) from None
    return made(**values)


def _convert(text: str, kind: Any) -> Any:
    if typing.get_origin(kind) is Literal:
        return {choice: choice for choice in typing.get_args(kind)}[text]
    return _SWITCH[text.lower()] if kind is bool else kind(text)


def _takes(kind: Any) -> str:
    if typing.get_origin(kind) is Literal:
        return "one of " + ", ".join(typing.get_args(kind))
    return _WORDS.get(kind, "a text")


def _problem(value: Any, bounds: Mapping[str, float | None]) -> str:
    above, least, most = (bounds.get(key) for key in ("above", "least", "most"))
    if isinstance(value, float) and not math.isfinite(value):
        return "It must be finite."
    if above is not None and not value > above:
        return f"It must be more than {above}."
    if least is not None and not value >= least:
        return f"It must be at least {least}."
    if most is not None and not value <= most:
        return f"It must be at most {most}."
    return ""


def _dashed(key: str) -> str:
    return key.replace("_", "-")
