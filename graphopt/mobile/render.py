"""How a survey for phones looks in a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from graphopt.human import count, percent, printable, shorten
from graphopt.sections import Section, page

if TYPE_CHECKING:
    from rich.console import ConsoleOptions, RenderableType

    from graphopt.mobile.report import Refusal, Share, Survey

__all__ = ["terminal"]

_REASONS = 6
_PARTS = "Each part is a way to the accelerator and back; of more than two, ONNX Runtime's own checker expects no gain."
_WRITE = "Write NAME.basic.ort for these providers: NAME.ort is optimized for processors, which hides layers from them."
_OPERATORS = 3


def terminal(survey: Survey, options: ConsoleOptions) -> Iterator[RenderableType]:
    """The providers, what each one leaves and why, what to do about it, and the operators of a reduced build."""
    name = "model" if survey.path is None else printable(survey.path.name)
    opset = "ONNX Runtime's format" if survey.opset is None else f"opset {survey.opset}"
    yield from page(f"{name}  {opset}", _facts(survey), _sections(survey), options)


def _facts(survey: Survey) -> Iterator[tuple[str, str]]:
    yield "as seen by", f"onnxruntime {survey.onnxruntime}, after its basic optimizations"
    if survey.at:
        shapes = (f"{printable(name)} {' x '.join(map(str, shape)) or 'scalar'}" for name, shape in survey.at.items())
        yield "counted at", ", ".join(shapes)
    hints = dict.fromkeys(hint for share in survey.providers for hint in share.advice)
    if survey.providers:
        hints[_WRITE] = None
    for index, hint in enumerate(hints):
        yield "" if index else "what helps", printable(hint)


def _sections(survey: Survey) -> Iterator[Section]:
    if survey.providers:
        yield _providers(survey)
    for share in survey.providers:
        yield _left(share)
    if survey.required_operators is not None:
        rows = [
            (domain, str(version), ", ".join(names))
            for domain, versions in survey.required_operators.items()
            for version, names in versions.items()
        ]
        yield Section(("required", "version", "operators"), rows, texts=3)


def _providers(survey: Survey) -> Section:
    heads: tuple[str, ...] = ("provider takes", "nodes", "of", "parts", "MACs", "share")
    if survey.open:
        heads = (*heads, "if inputs are fixed")
    rows: list[tuple[str, ...]] = []
    shares: list[float] = []
    for share in survey.providers:
        shares.append(_part(share))
        row: tuple[str, ...] = (
            share.name, str(share.nodes_taken), str(share.nodes), "" if share.parts is None else str(share.parts),
            count(share.macs_taken), percent(shares[-1]),
        )  # fmt: skip
        if survey.open:
            row = (*row, "" if share.fixed is None else _brief(share.fixed))
        rows.append(row)
    return Section(heads, rows, shares, more=_PARTS if any(map(_is_divided, survey.providers)) else "")


def _is_divided(share: Share) -> bool:
    return (share.parts or 0) > 2 or (share.fixed is not None and _is_divided(share.fixed))


def _brief(share: Share) -> str:
    parts = "" if share.parts is None else f" in {share.parts} part{'s' * (share.parts != 1)}"
    return f"{share.nodes_taken} node{'s' * (share.nodes_taken != 1)}{parts}, {_part(share):.0%}"


def _part(share: Share) -> float:
    return share.macs_taken / share.macs if share.macs else share.nodes_taken / max(1, share.nodes)


def _left(share: Share) -> Section:
    rows = [_reason(one, share) for one in share.refusals[:_REASONS]]
    more = len(share.refusals) - _REASONS
    return Section(
        (f"{share.name} leaves, because", "operators", "nodes", "MACs"),
        rows,
        texts=2,
        more=f"and {more} more reasons" if more > 0 else "",
    )


def _reason(refusal: Refusal, share: Share) -> tuple[str, ...]:
    names = [f"{times} {name}" for name, times in refusal.operators.items()]
    more = f", {len(names) - _OPERATORS} more" if len(names) > _OPERATORS else ""
    shown = shorten(printable(", ".join(names[:_OPERATORS])), 44) + more
    return printable(refusal.reason), shown, str(refusal.nodes), percent(refusal.macs / share.macs if share.macs else 0)
