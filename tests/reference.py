"""The page ``graphopt/API.md``: public names, from their signatures and docstrings.

``python tests/reference.py`` prints it, ``python tests/reference.py --check FILE`` fails if FILE is another.
Nothing is imported: griffe reads the sources, and knows the headings of Google's style.
"""

from __future__ import annotations

import functools
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import griffe

__all__ = ["SECTIONS", "anchor", "main", "page"]

ROOT: Final = Path(__file__).parents[1]
_WIDTH: Final = 100
_HEAD: Final = """\
# The Python API

Public names, as they are documented in the code; `make api` writes this page. All of them keep their meaning within a
version of graphopt (see the [changelog](../CHANGELOG.md)); what is not here may change. The same on the command line:
`graphopt COMMAND --help`.
"""

SECTIONS: Final[Mapping[str, tuple[str, Mapping[str, str]]]] = {
    "Models": (
        "A model is an `onnx_ir.Model`; weights stay on disk until something reads them.",
        {"graphopt.load": "graphopt.io", "graphopt.save": "graphopt.io"},
    ),
    "Make it smaller and faster": (
        """\
Each takes a path, an `onnx.ModelProto`, an `onnx_ir.Model` or an `onnx_graphsurgeon.Graph`, gives back the same kind (a
path gives an `onnx_ir.Model`), and never changes yours. With `with_report=True` it gives the report too.""",
        {
            "graphopt.optimize": "graphopt.optimizer",
            "graphopt.compress": "graphopt.compression.compressor",
            "graphopt.prune": "graphopt.pruning.pruner",
            "graphopt.quantize": "graphopt.quantization.quantizer",
            "graphopt.distill": "graphopt.distillation.distiller",
        },
    ),
    "Prove and measure it": (
        "What the command line prints, as data. Reports print themselves in a terminal and in a notebook.",
        {
            "graphopt.validate": "graphopt.verify.equivalence",
            "Verifier": "graphopt.verify.equivalence",
            "graphopt.bench": "graphopt.benchmark.latency",
            "graphopt.inspect.inspect": "graphopt.inspect.inspection",
            "graphopt.mobile.survey": "graphopt.mobile.surveying",
        },
    ),
    "Reports": (
        "What the functions above give back, or give beside the model.",
        {
            **dict.fromkeys(("Report", "Summary", "PassCount", "DroppedPass"), "graphopt.pipeline.report"),
            **dict.fromkeys(("CompressionReport", "Stage"), "graphopt.compression.report"),
            **dict.fromkeys(("PruneReport", "GroupOutcome", "Fidelity", "Size"), "graphopt.pruning.report"),
            **dict.fromkeys(("QuantizeReport", "LayerOutcome"), "graphopt.quantization.report"),
            **dict.fromkeys(("DistillReport", "Contender"), "graphopt.distillation.report"),
            **dict.fromkeys(("Equivalence", "OutputComparison", "Tolerance"), "graphopt.verify.result"),
            **dict.fromkeys(("BenchTable", "BenchRow"), "graphopt.benchmark.table"),
            "Inspection": "graphopt.inspect.inspection",
            **dict.fromkeys(("Survey", "Share", "Refusal"), "graphopt.mobile.report"),
        },
    ),
    "Channels": (
        "`graphopt.channels`: which channels must go together, and their removal.",
        {
            **dict.fromkeys(
                (f"graphopt.channels.{name}" for name in ("analyze", "mask", "remove")), "graphopt.channels.analysis"
            ),
            "graphopt.channels.apply_mask": "graphopt.channels.liveness.masks",
            "graphopt.channels.explain": "graphopt.channels.explaining.explanation",
            "ChannelGraph": "graphopt.channels.groups",
            **dict.fromkeys(("Group", "Unit", "Member", "Saving", "Frozen"), "graphopt.channels.units"),
            "Explanation": "graphopt.channels.explaining.explanation",
        },
    ),
    "Torch": (
        "`graphopt.torch`: an ONNX graph as a module that trains (`pip install 'graphopt[distill]'`).",
        {
            "graphopt.torch.from_onnx": "graphopt.torch.module",
            "graphopt.torch.to_onnx": "graphopt.torch.writeback",
            "graphopt.torch.register": "graphopt.torch.registry",
            "GraphModule": "graphopt.torch.module",
            **dict.fromkeys(("OpNode", "UnsupportedOperator"), "graphopt.torch.node"),
        },
    ),
    "Passes": (
        """\
For authors of passes: `graphopt.pipeline.base` and `graphopt.rewrite.match`. [passes/README.md](../passes/README.md)
says in five steps how to add one.""",
        {
            **dict.fromkeys(
                ("Pass", "RulePass", "GraphPass", "Context", "Outcome", "Safety", "Target"), "graphopt.pipeline.base"
            ),
            **dict.fromkeys(("Match", "Miss"), "graphopt.rewrite.match"),
        },
    ),
}
"""Headings, with what is said below them, and the names there by the module that defines them."""

_ERRORS: Final = "graphopt.errors"
_ERRORS_WORDS: Final = """\
What a user can do something about is a `graphopt.GraphoptError`, with `message` (what, where) and `hint` (what to do
about it). The command line prints both and ends with the exit code. The kinds are in `graphopt.errors`.
"""
_TEXT: Final = griffe.DocstringSectionKind.text


def page() -> str:
    """The page, as Markdown."""
    parts = [_HEAD, "## Contents\n", *_contents(), ""]
    for title, (words, names) in SECTIONS.items():
        parts += [f"## {title}\n", f"{words}\n"]
        for name, module in names.items():
            parts += _entry(name, module)
    return "\n".join([*parts, *_errors()]).rstrip() + "\n"


def _contents() -> Iterator[str]:
    for title, (_, names) in SECTIONS.items():
        links = ", ".join(f"[{name.rpartition('.')[2]}](#{anchor(name)})" for name in names)
        yield f"- [{title}](#{anchor(title)}): {links}"
    yield "- [Errors](#errors)"


def anchor(heading: str) -> str:
    """Where a link to a heading leads, as GitHub names it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@functools.cache
def _module(name: str) -> griffe.Module:
    path = ROOT.joinpath(*name.split(".")).with_suffix(".py")
    return griffe.visit(name, path, path.read_text("utf-8"), docstring_parser=griffe.Parser.google)


def _entry(name: str, module: str) -> Iterator[str]:
    member = _module(module)[name.rpartition(".")[2]]
    source = f"{module.partition('.')[2].replace('.', '/')}.py"
    yield f"### {name}\n"
    if isinstance(member, griffe.Function):
        yield from _function(member, name)
    else:
        yield from _class(member)
    yield f"Source: [graphopt/{source}]({source})\n"


def _function(function: griffe.Function, name: str) -> Iterator[str]:
    yield _signature(function, name)
    yield from _documentation(function)


def _class(member: griffe.Class) -> Iterator[str]:
    made = member.members.get("__init__")
    if isinstance(made, griffe.Function) and _has(member, griffe.DocstringSectionKind.parameters):
        yield _signature(made, member.name).replace(" -> None\n", "\n")
    yield from _documentation(member)
    if not _has(member, griffe.DocstringSectionKind.attributes):
        fields = [one for one in member.attributes.values() if one.value is None and one.name[0] != "_"]
        documented = [one for one in fields if one.annotation is not None and "property" not in one.labels]
        yield from _table(("attribute", "type"), ((f"`{one.name}`", _code(one.annotation)) for one in documented))
    values = [one for one in member.attributes.values() if one.value is not None and one.name.isupper()]
    if values:
        yield f"One of {', '.join(f'`{one.name}`' for one in values)}.\n"
    methods = [one for one in member.functions.values() if not one.name.startswith("_")]
    plain = [one for one in methods if not _details(one)]
    properties = [one for one in member.attributes.values() if "property" in one.labels and one.name[0] != "_"]
    rows = [(f"`.{one.name}`", _summary(one)) for one in properties]
    rows += [(f"`.{_call(one)}`", _summary(one)) for one in plain]
    yield from _table(("also", ""), rows)
    for one in methods:
        if one not in plain:
            yield f"#### {member.name}.{one.name}\n"
            yield from _function(one, one.name)


def _details(function: griffe.Function) -> bool:
    return any(_has(function, kind) for kind in griffe.DocstringSectionKind if kind is not _TEXT)


def _has(member: griffe.Object, kind: griffe.DocstringSectionKind) -> bool:
    return member.docstring is not None and any(section.kind is kind for section in member.docstring.parsed)


def _summary(member: griffe.Object) -> str:
    return _prose(member.docstring.value) if member.docstring is not None else ""


def _call(function: griffe.Function) -> str:
    return f"{function.name}({', '.join(_parameters(function))})"


def _parameters(function: griffe.Function, *, full: bool = False) -> list[str]:
    """As they are written, without ``self`` and ``cls``; a ``*`` stands before those that go by name only."""
    shown: list[str] = []
    for one in function.parameters:
        if one.name in ("self", "cls") and not shown:
            continue
        stars = {griffe.ParameterKind.var_positional: "*", griffe.ParameterKind.var_keyword: "**"}.get(one.kind, "")
        if one.kind is griffe.ParameterKind.keyword_only and not any(name.startswith("*") for name in shown):
            shown.append("*")
        annotation = f": {one.annotation}" if full and one.annotation is not None else ""
        named = function.module.members.get(str(one.default))
        written = named.value if isinstance(named, griffe.Attribute) else one.default
        value = re.sub(r"'([^'\"]*)'", r'"\1"', str(written))
        default = "" if one.default is None or stars else f" = {value}" if annotation else f"={value}"
        shown.append(f"{stars}{one.name}{annotation}{default}")
    return shown


def _signature(function: griffe.Function, name: str) -> str:
    parameters = _parameters(function, full=True)
    result = f" -> {function.returns}" if function.returns is not None else ""
    line = f"{name}({', '.join(parameters)}){result}"
    if len(line) > _WIDTH:
        line = f"{name}(\n" + "".join(f"    {one},\n" for one in parameters) + f"){result}"
    return f"```python\n{line}\n```\n"


def _documentation(member: griffe.Object) -> Iterator[str]:
    kinds = griffe.DocstringSectionKind
    for section in member.docstring.parsed if member.docstring is not None else ():
        value: Any = section.value
        if section.kind is _TEXT:
            yield f"{_block(value)}\n"
        elif section.kind is kinds.parameters:
            yield from _table(("argument", ""), ((f"`{one.name}`", _prose(one.description)) for one in value))
        elif section.kind is kinds.attributes:
            yield from _table(
                ("attribute", "type", ""),
                ((f"`{one.name}`", _type(member, one), _prose(one.description)) for one in value),
            )
        elif section.kind is kinds.raises:
            yield from _table(("raises", ""), ((f"`{one.annotation}`", _prose(one.description)) for one in value))
        elif section.kind in (kinds.returns, kinds.yields):
            yield f"{section.kind.value.title()}: {_prose(' '.join(one.description for one in value))}\n"
        else:
            raise ValueError(f"{member.path} has a section that this page does not know: {section.kind.value}")


def _type(member: griffe.Object, attribute: griffe.DocstringAttribute) -> str:
    declared = member.members.get(attribute.name)
    annotation = attribute.annotation or getattr(declared, "annotation", None)
    return _code(annotation) if annotation is not None else ""


def _code(annotation: object) -> str:
    """A type, in a cell of a table."""
    return f"`{annotation}`".replace("|", "\\|")


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    if lines:
        yield "\n".join([f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}", *lines, ""])


def _prose(text: str) -> str:
    """One paragraph, for a cell of a table."""
    blocks = re.split(r"\n\s*\n", _markdown(text.strip()))
    return "<br>".join(" ".join(block.split()) for block in blocks).replace("|", "\\|")


def _block(text: str) -> str:
    """Paragraphs, with literal blocks and examples as code."""
    made = []
    for block in re.split(r"\n\s*\n", text.strip("\n")):
        if block.startswith((" ", ">>>")):
            made.append(f"```python\n{textwrap.dedent(block)}\n```")
        else:
            made.append(_markdown(re.sub(r"::$", ":", block)))
    return "\n\n".join(made)


def _markdown(text: str) -> str:
    """Roles and literals of reStructuredText as Markdown has them."""
    text = re.sub(r":\w+:`~?([^`]+)`", lambda found: f"`{found[1]}`", text)
    return text.replace("``", "`")


def _errors() -> Iterator[str]:
    module = _module(_ERRORS)
    numbers = {one.name: str(one.value) for one in module["ExitCode"].attributes.values()}
    names = {
        numbers[str(code.value).rpartition(".")[2]]: f"`{one.name}`"
        for one in module.classes.values()
        if (code := one.attributes.get("exit_code")) is not None and one.name != "GraphoptError"
    }
    assert module.docstring is not None
    yield "## Errors\n"
    yield _ERRORS_WORDS
    codes = re.findall(r"^(\d+) +(.+)$", module.docstring.value, re.MULTILINE)
    yield from _table(
        ("exit code", "error", ""), ((code, names.get(code, ""), _prose(meaning)) for code, meaning in codes)
    )
    yield "Source: [graphopt/errors.py](errors.py)\n"


def main(arguments: list[str]) -> int:
    """Prints the page, or checks a file."""
    made = page()
    if arguments[:1] != ["--check"]:
        sys.stdout.write(made)
        return 0
    (path,) = map(Path, arguments[1:])
    if path.is_file() and path.read_text("utf-8") == made:
        return 0
    sys.stderr.write(f"{path} is not the page of this code: 'make api' writes it anew.\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
