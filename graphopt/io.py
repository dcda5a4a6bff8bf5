"""Load and save models.

Relative paths are resolved against the current directory at the moment of the call. Weights stay in their file,
memory-mapped, until something reads them, and a loaded model does not change when its file is replaced or deleted.
A save puts the complete new model in place of the old one or leaves everything as it was, whenever the process dies.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from graphopt.errors import ModelError, SaveError

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

    from graphopt.atomic import Replacement
    from graphopt.proto.wire import Buffer

__all__ = ["check_target", "load", "save", "staged", "write_text"]

_MAP_FROM = 1 << 20  # bytes: smaller files are read, bigger ones stay mapped
_PAGE = 4096
_PATIENCE = 20  # attempts at a model that changes while it is read
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NOT_ENOUGH_ROOM = "Free some room on the disk, or save somewhere else."


def load(source: str | os.PathLike[str] | bytes | onnx.ModelProto | ir.Model) -> ir.Model:
    """Read a model from a path, from the bytes of a file, or from another model, which stays untouched.

    A model read from a path has that path, made absolute, in ``model.meta["graphopt.path"]``; one with external data
    has its data files and their sizes in ``model.meta["graphopt.external"]``.

    Args:
        source: The path, the bytes, or an ``onnx.ModelProto``, a graphsurgeon ``Graph`` or an ``onnx_ir.Model``.

    Raises:
        UsageError: It is none of these.
        ModelError: There is no such file, it is no ONNX model, its external data are missing or lead outside of its
            folder, or the graph is invalid (an undefined name, a name defined twice, a cycle).
    """
    from graphopt import proto

    if isinstance(source, (bytes, bytearray, memoryview)):
        return proto.from_bytes(source)
    if not isinstance(source, (str, os.PathLike)):
        from graphopt.interop.kinds import Source

        return Source.of(source).read()
    path = Path(source).absolute()
    for _ in range(_PATIENCE):
        before = _identity(path)
        try:
            return _load(path)
        except ModelError:
            # Another process may have replaced the model and its data file between our opening the two.
            if _identity(path) == before:
                raise
    return _load(path)


def _load(path: Path) -> ir.Model:
    from graphopt import proto
    from graphopt.external import ExternalFiles

    try:
        data = _read(path)
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {str(path)!r}: {_reason(error)}") from None
    if bytes(data[4:8]) == b"ORTM":
        raise ModelError(
            f"{path} is in ONNX Runtime's own format, which cannot be rewritten", hint="Give the ONNX model."
        )
    external = ExternalFiles(path)
    try:
        model = proto.from_bytes(data, external)
    except ModelError as error:
        raise ModelError(f"{path}: {error.message}", hint=error.hint) from error.__cause__
    model.meta["graphopt.path"] = str(path)
    if external.files:
        model.meta["graphopt.external"] = external.files
    return model


def save(
    model: ir.Model | onnx.ModelProto,
    path: str | os.PathLike[str],
    *,
    external_data: bool | None = None,
    size_threshold: int = 1024,
) -> None:
    """Write a model to a file, atomically; the file may be the one it was loaded from.

    External data go to one file beside the model: ``NAME.data``, or ``NAME.1.data`` and so on while the model that
    is replaced still needs that name. The data file of a replaced model is removed. A path that ends in ``.ort`` gets
    ONNX Runtime's own format, for its small builds, with its optimizations for processors; ``.basic.ort``, as its
    converter calls that, without them, so that accelerators find ONNX's operators: see
    :mod:`graphopt.interop.ort_format`.

    Args:
        model: An ``onnx_ir.Model``, an ``onnx.ModelProto`` or a graphsurgeon ``Graph``; not changed.
        path: Where to. A symbolic link is followed.
        external_data: Whether to keep weights in a file of their own. By default only what passes protobuf's limit
            of 2 GB, or came from external data.
        size_threshold: The fewest bytes of an initializer that goes to the data file.

    Raises:
        UsageError: It is no model.
        SaveError: The file cannot be written. What was there before is untouched, and nothing new is left behind.
        ModelError: The model cannot be expressed in ONNX, or not in ONNX Runtime's format.
    """
    from graphopt import proto
    from graphopt.interop.kinds import as_model

    model = as_model(model)
    mode = check_target(Path(path))
    target = Path(path).resolve()
    if str(target) in model.meta.get("graphopt.external", {}):
        raise SaveError(f"cannot write {str(target)!r}: the weights of the model lie in that file")
    if target.suffix.lower() == ".ort":
        with _explained(target):
            _save_alone(target, [_in_ort_format(model, target)], mode)
        return
    with _explained(target):
        wanted = external_data if external_data is not None else bool(model.meta.get("graphopt.external"))
        buffers = [] if wanted else proto.to_buffers(model)
        size = sum(map(len, buffers))
        if size > proto.LIMIT and external_data is False:
            raise SaveError(
                f"the model is {size / 1e9:.1f} GB and a file without external data holds at most 2.1 GB",
                hint="Let it have external data.",
            )
        tensors = proto.outside_candidates(model, size_threshold) if wanted or size > proto.LIMIT else {}
        if tensors:
            _save_with_data(model, target, tensors, mode)
        else:
            _save_alone(target, buffers or proto.to_buffers(model), mode)


def _in_ort_format(model: ir.Model, target: Path) -> bytes:
    from graphopt.interop.ort_format import to_ort_format

    try:
        return to_ort_format(model, level="basic" if target.name.lower().endswith(".basic.ort") else "extended")
    except (ModelError, SaveError) as error:
        raise type(error)(f"cannot write {str(target)!r}: {error.message}", hint=error.hint) from error.__cause__


def _read(path: Path) -> Buffer:
    from graphopt.external import map_file

    with path.open("rb") as file:
        state = os.fstat(file.fileno())
        if stat.S_ISREG(state.st_mode) and state.st_size >= _MAP_FROM:
            return map_file(file.fileno())
        return file.read()


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        state = path.stat()
    except (OSError, ValueError):
        return None
    return state.st_ino, state.st_mtime_ns


def check_target(target: Path) -> int | None:
    """Fail early, before the work is done, where :func:`save` would fail.

    Returns:
        The permission bits to keep, if a file is replaced.

    Raises:
        SaveError: The target is something that must not be replaced, or its folder is missing or read-only.
    """
    try:
        target = target.resolve()
        if not target.parent.is_dir():
            raise SaveError(f"cannot write {str(target)!r}: there is no folder {str(target.parent)!r}")
        if not os.access(target.parent, os.W_OK):
            raise SaveError(f"cannot write {str(target)!r}: the folder is read-only")
        mode = target.stat().st_mode
    except FileNotFoundError:
        return None
    except (OSError, RuntimeError, ValueError) as error:
        raise SaveError(f"cannot write {str(target)!r}: {_reason(error)}") from None
    if stat.S_ISDIR(mode):
        raise SaveError(f"cannot write {str(target)!r}: it is a folder", hint="Name a file in it.")
    if not stat.S_ISREG(mode):
        raise SaveError(f"cannot write {str(target)!r}: it is no regular file")
    if not os.access(target, os.W_OK):
        raise SaveError(f"cannot write {str(target)!r}: it is read-only")
    return stat.S_IMODE(mode)


def write_text(target: str | os.PathLike[str], text: str) -> None:
    """Put a text file in place of the old one, or leave everything as it was.

    Raises:
        SaveError: It cannot be written.
    """
    with staged(target, text.encode("utf-8")):
        pass


@contextlib.contextmanager
def staged(target: str | os.PathLike[str], contents: bytes) -> Iterator[None]:
    """Write a file, and put it in place of the old one when the block has ended well: several files appear together.

    Raises:
        SaveError: It cannot be written.
    """
    from graphopt.atomic import Replacement

    path = Path(target).absolute()
    mode = check_target(path)
    path = path.resolve()
    with contextlib.ExitStack() as stack:
        with _explained(path):
            file = stack.enter_context(Replacement(path))
            file.write([contents], mode=mode)
        yield
        with _explained(path):
            file.commit()


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Says which file an error of the system is about."""
    try:
        yield
    except OSError as error:
        hint = _NOT_ENOUGH_ROOM if error.errno in _NO_ROOM else ""
        raise SaveError(f"cannot write {str(path)!r}: {_reason(error)}", hint=hint) from None


def _save_alone(target: Path, buffers: list[Buffer], mode: int | None) -> None:
    from graphopt.atomic import Replacement, locked
    from graphopt.proto import join_check

    join_check(buffers)
    with Replacement(target) as file:
        file.write(buffers, mode=mode)
        if not _has_data_files(target):
            file.commit()
            return
        with locked(target.parent):
            replaced = _prepare(target)
            _commit(file, replaced)


def _save_with_data(model: ir.Model, target: Path, tensors: dict[int, ir.TensorProtocol], mode: int | None) -> None:
    """Write the data under a name that nothing refers to, then the model that refers to it.

    Killed before the model is renamed, the data file still has its temporary name too, by which the next save
    knows it for a leftover; the same goes for the data of the replaced model.
    """
    from graphopt import proto
    from graphopt.atomic import Replacement, locked
    from graphopt.proto.tensors import payload

    places: dict[int, proto.Place] = {}
    paddings: list[int] = []
    end = 0
    for key, tensor in tensors.items():
        size = tensor.nbytes
        paddings.append(-end % (_PAGE if size >= _MAP_FROM else 64))
        places[key] = proto.Place("", end + paddings[-1], size)
        end += paddings[-1] + size

    def contents() -> Iterator[Buffer]:
        """One tensor at a time: some are computed when they are read."""
        for padding, tensor in zip(paddings, tensors.values(), strict=True):
            yield bytes(padding)
            yield payload(tensor)

    with locked(target.parent):
        _prepare(target)
    with Replacement(_data_file(target, 0)) as data, Replacement(target) as file:
        data.write(contents(), mode=mode)
        with locked(target.parent):
            replaced = _prepare(target)
            named = _link(data.path, target)
            try:
                placed = {key: place._replace(location=named.name) for key, place in places.items()}
                buffers = proto.to_buffers(model, placed)
                proto.join_check(buffers)
                file.write(buffers, mode=mode)
                _commit(file, replaced)
            finally:
                if not file.is_in_place:
                    named.unlink()
            data.discard()


def _commit(file: Replacement, replaced: list[Path]) -> None:
    """Put a model in place and remove the data files of the one before. Call it with the folder locked."""
    from graphopt.atomic import mark

    marks = [mark(path, _data_file(file.target, 0)) for path in replaced]
    try:
        file.commit()
        _remove(replaced)
    finally:
        _remove(name for name in marks if name)


def _data_file(target: Path, n: int) -> Path:
    return target.with_name(f"{target.name}.{n}.data" if n else f"{target.name}.data")


def _has_data_files(target: Path) -> bool:
    """Whether there may be data files of the model that is replaced, or of an unfinished save."""
    numbered = (_data_file(target, n) for n in range(8))
    return any(map(os.path.lexists, (*numbered, target.with_name(f".{target.name}.data.0.tmp"))))


def _prepare(target: Path) -> list[Path]:
    """Clean up after killed saves; the data files that go when the model does. Call it with the folder locked."""
    from graphopt.atomic import remove_stale

    used = _locations(target)
    own = _data_files(target)

    # A data file whose save was killed still has its temporary name as well.
    def forget(state: os.stat_result) -> None:
        _remove(path for path in own if path.name not in used and os.path.samestat(os.lstat(path), state))

    remove_stale(_data_file(target, 0), unfinished=forget)
    return [path for path in own if path.name in used]


def _data_files(target: Path) -> list[Path]:
    """Data files beside the target that are named after it."""
    names = [path.name for path in target.parent.iterdir()]
    prefix, suffix = f"{target.name}.", ".data"
    numbered = [n for n in names if n.startswith(prefix) and n.endswith(suffix) and n[len(prefix) : -5].isdigit()]
    return [target.with_name(name) for name in (*numbered, *({f"{target.name}.data"} & set(names)))]


def _locations(target: Path) -> set[str]:
    """The files in which the model that is there now has its external data."""
    from graphopt import proto

    try:
        return proto.external_locations(_read(target))
    except (OSError, ModelError):
        return set()


def _link(temporary: Path, target: Path) -> Path:
    """Give a finished data file the first free name."""
    n = 0
    while True:
        named = _data_file(target, n)
        try:
            os.link(temporary, named)
        except FileExistsError:
            n += 1
        except OSError:  # a file system without hard links
            if not os.path.lexists(named):
                temporary.rename(named)
                return named
            n += 1
        else:
            return named


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):  # a leftover is no reason to fail once the model is in place
            path.unlink()


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
