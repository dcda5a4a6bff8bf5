"""Recipes: commands and their options in a TOML file, under the names that the command line gives them.

.. code-block:: toml

    [[steps]]
    command = "optimize"
    model = "model.onnx"
    output = "fast.onnx"

    [[steps]]
    command = "bench"
    models = ["model.onnx", "fast.onnx"]
    threads = 1

What a step may say is asked of its command, so that whatever a command takes, a recipe takes.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click

from graphopt.cli.main import COMMANDS, cli
from graphopt.errors import GraphoptError, ModelError, UsageError
from graphopt.pipeline.spec import close_match

__all__ = ["Setting", "Step", "read"]

_OURS: Final = ("json", "quiet", "verbose")
"""Options that ``graphopt run`` has for all its steps."""

_KINDS: Final[Sequence[tuple[type[click.ParamType[Any]], tuple[type, ...], str]]] = (
    (click.types.IntParamType, (int,), "a whole number"),
    (click.types.FloatParamType, (int, float), "a number"),
    (click.Path, (str,), "a path"),
    (click.ParamType, (str, int, float), "a text"),
)
"""Kinds of parameters, of which the first that fits counts: what TOML may say, and what errors call that."""


@dataclasses.dataclass(frozen=True, slots=True)
class Setting:
    """What is given beside the recipe, and goes before it.

    Attributes:
        step: Number or command of the steps that it is for; empty for all that have the key.
        key: With dashes.
        text: As on the command line.
    """

    step: str
    key: str
    text: str

    @classmethod
    def parse(cls, given: str) -> Setting:
        """Reads ``epochs=3``, ``prune.epochs=3`` or ``2.epochs=3``.

        Raises:
            UsageError: It is none of them.
        """
        place, sign, text = given.partition("=")
        step, _, key = place.strip().rpartition(".")
        if not sign or not key or not text.strip():
            raise UsageError(f"--set cannot be '{given}'", hint="Write KEY=VALUE, or STEP.KEY=VALUE.")
        return cls(step, key.replace("_", "-"), text)

    def is_for(self, number: int, command: str) -> bool:
        """Whether it is for that step."""
        return self.step in ("", str(number), command)


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """A command to run.

    Attributes:
        where: For messages: the recipe, and which step of it.
        name: Of the command.
        words: What follows it on the command line.
    """

    where: str
    name: str
    words: tuple[str, ...]

    @property
    def command(self) -> click.Command:
        """What is run."""
        return _command(self.name)

    def parsed(self, parent: click.Context | None) -> click.Context:
        """Its values as the command takes them, ready to be invoked.

        Raises:
            UsageError: A value that the command refuses.
        """
        try:
            return self.command.make_context(self.name, list(self.words), parent=parent)
        except click.UsageError as error:
            param = error.param if isinstance(error, click.BadParameter) else None
            about = f"'{param.opts[-1].lstrip('-')}': " if param is not None else ""
            hint = f"See 'graphopt {self.name} --help'."
            raise UsageError(f"{self.where}: {about}{error.message}", hint=hint) from error
        except GraphoptError as error:
            error.message = f"{self.where}: {error.message}"
            raise


def _command(name: str) -> click.Command:
    found = cli.get_command(click.Context(cli), name)
    assert found is not None
    return found


@dataclasses.dataclass(frozen=True, slots=True)
class _Key:
    """A key that a step may have.

    Attributes:
        param: What it sets.
        option: As it is spelled on the command line; empty for an argument.
        opposite: The option that says no; empty where leaving it out does.
    """

    param: click.Parameter
    option: str = ""
    opposite: str = ""

    @property
    def _is_switch(self) -> bool:
        return isinstance(self.param, click.Option) and self.param.is_flag

    @property
    def _is_list(self) -> bool:
        return self.param.multiple or self.param.nargs == -1

    @property
    def _kind(self) -> tuple[tuple[type, ...], str]:
        return next((types, name) for kind, types, name in _KINDS if isinstance(self.param.type, kind))

    @property
    def takes(self) -> str:
        """What it can be, for messages."""
        if self._is_switch:
            return "true or false"
        return f"{self._kind[1]}, or a list of such" if self._is_list else self._kind[1]

    def words(self, value: object) -> list[str]:
        """What a value of TOML is on the command line.

        Raises:
            ValueError: It is of another kind.
        """
        if self._is_switch:
            if not isinstance(value, bool):
                raise ValueError(value)
            word = self.option if value else self.opposite
            return [word] if word else []
        found = value if self._is_list and isinstance(value, list) else [value]
        types, _ = self._kind  # compared as they are: TOML's true is no number, though Python's is
        if not found or any(type(one) not in types or not str(one).strip() or "\0" in str(one) for one in found):
            raise ValueError(value)
        return self._spelled(map(str, found))

    def words_of_texts(self, texts: Sequence[str]) -> list[str]:
        """The same for texts of the command line; the last one counts where there can only be one.

        Raises:
            ValueError: A switch is neither ``true`` nor ``false``.
        """
        if self._is_switch:
            return self.words({"true": True, "false": False}.get(texts[-1].strip().lower()))
        return self._spelled(texts if self._is_list else texts[-1:])

    def _spelled(self, texts: Iterable[str]) -> list[str]:
        if not self.option:
            return list(texts)
        pairs = ([f"{self.option}={text}"] if text.startswith("-") else [self.option, text] for text in texts)
        return [word for pair in pairs for word in pair]


def read(path: Path, settings: Sequence[Setting] = (), flags: Sequence[str] = ()) -> list[Step]:
    """The steps of a recipe, all of them checked as far as one can without running them.

    Args:
        path: A TOML file.
        settings: What goes before it.
        flags: Options for each step.

    Raises:
        ModelError: The file cannot be read, or is no TOML.
        UsageError: There is no such command or key, a value is of another kind, or a required one is missing.
    """
    tables = _tables(path)
    names = [_command_of(table, where) for where, table in tables]
    keys = [_keys(name) for name in names]
    for setting in settings:
        _check(setting, path, names, keys)
    steps = []
    for number, ((where, table), name, own) in enumerate(zip(tables, names, keys, strict=True), start=1):
        given: dict[str, list[str]] = {}
        for setting in settings:
            if setting.is_for(number, name) and setting.key in own:
                given.setdefault(setting.key, []).append(setting.text)
        described = f"{where} ({name})"
        found = _from_table(table, own, described) | _from_texts(given, own)
        steps.append(Step(described, name, _arranged(found, own, flags, described)))
    return steps


def _tables(path: Path) -> list[tuple[str, Mapping[str, Any]]]:
    """The table of each step, and where it is."""
    try:
        held = tomllib.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise ModelError(f"cannot read the recipe {path}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ModelError(
            f"the recipe {path} is no TOML: {error}", hint='Texts need quotes: goal = "macs=0.5".'
        ) from error
    steps = held.get("steps")
    if not isinstance(steps, list):  # prune has an option of that name, a number
        return [(str(path), held)]
    beside = [key for key in held if key != "steps"]
    if beside:
        raise UsageError(f"{path}: '{beside[0]}' is beside the steps", hint="Write it into the steps that it is for.")
    if not steps or not all(isinstance(step, dict) for step in steps):
        raise UsageError(f"{path}: 'steps' are no tables", hint="Begin each step with a line [[steps]].")
    return [(f"{path}, step {number}", step) for number, step in enumerate(steps, start=1)]


def _command_of(table: Mapping[str, Any], where: str) -> str:
    known = [name for name in COMMANDS if name != "run"]
    name = table.get("command")
    if name is None:
        raise UsageError(f"{where}: 'command' is missing", hint=f"It is one of {', '.join(known)}.")
    if name == "run":
        raise UsageError(f"{where}: a recipe cannot run a recipe", hint="Write its steps into this one.")
    if name not in known:
        raise UsageError(f"{where}: there is no command {name!r}", hint=close_match(str(name), known))
    return str(name)


def _keys(name: str) -> dict[str, _Key]:
    """What a step of that command may have, by key."""
    found: dict[str, _Key] = {}
    for param in _command(name).params:
        if isinstance(param, click.Argument):
            found.setdefault(str(param.name).replace("_", "-"), _Key(param))
            continue
        for options, others in ((param.opts, param.secondary_opts), (param.secondary_opts, param.opts)):
            opposite = next(iter(others), "")
            long = [one for one in options if one.startswith("--") and one[2:] not in (*found, *_OURS)]
            found |= {one[2:]: _Key(param, one, opposite) for one in long}
    return found


def _check(setting: Setting, path: Path, names: Sequence[str], keys: Sequence[Mapping[str, _Key]]) -> None:
    """That a setting is for something."""
    meant = [own for number, own in enumerate(keys, start=1) if setting.is_for(number, names[number - 1])]
    if not meant:
        raise UsageError(f"--set: {path} has no step '{setting.step}'", hint=close_match(setting.step, names))
    known = {key: one for own in meant for key, one in own.items()}
    if setting.key not in known:
        raise UsageError(f"--set: no step has the key '{setting.key}'", hint=close_match(setting.key, known))
    try:
        known[setting.key].words_of_texts([setting.text])
    except ValueError:
        raise UsageError(
            f"--set: '{setting.key}' cannot be '{setting.text}'", hint=f"It takes {known[setting.key].takes}."
        ) from None


def _from_table(table: Mapping[str, Any], keys: Mapping[str, _Key], where: str) -> dict[str, list[str]]:
    """The words of each parameter, by its name."""
    found: dict[str, list[str]] = {}
    for given, value in table.items():
        key = given.replace("_", "-")
        if key == "command":
            continue
        if key not in keys:
            hint = f"It is for all steps: graphopt run --{key}." if key in _OURS else close_match(key, keys)
            raise UsageError(f"{where}: there is no key '{given}'", hint=hint)
        name = str(keys[key].param.name)
        if name in found:
            raise UsageError(f"{where}: '{given}' is there twice", hint="Leave one out.")
        try:
            found[name] = keys[key].words(value)
        except ValueError:
            raise UsageError(f"{where}: '{given}' cannot be {value!r}", hint=f"It takes {keys[key].takes}.") from None
    return found


def _from_texts(given: Mapping[str, Sequence[str]], keys: Mapping[str, _Key]) -> dict[str, list[str]]:
    return {str(keys[key].param.name): keys[key].words_of_texts(texts) for key, texts in given.items()}


def _arranged(
    found: Mapping[str, Sequence[str]], keys: Mapping[str, _Key], flags: Sequence[str], where: str
) -> tuple[str, ...]:
    """Arguments in their order, then options in that of the recipe.

    Raises:
        UsageError: A required one is missing.
    """
    for key, one in keys.items():
        if one.param.required and not found.get(str(one.param.name)):
            raise UsageError(f"{where}: '{key}' is missing", hint=f"It takes {one.takes}.")
    places = [str(one.param.name) for one in keys.values() if not one.option]
    arguments = [word for name in places for word in found.get(name, ())]
    options = [word for name, words in found.items() if name not in places for word in words]
    if any(word.startswith("-") for word in arguments):
        return (*options, *flags, "--", *arguments)
    return (*arguments, *options, *flags)
