"""How a file becomes a choice: classes that register by being defined.

A *kind* of plug-in (dataset, model, backbone, sampler, metric, extractor, engine) is a class
derived from :class:`Plugin` with ``kind="…"``. Its subclasses that state a ``name`` are its
choices. The modules beside the one that defines the kind are imported when the choices are first
asked for, and a user's own file by :func:`load_file`; nothing keeps a list by hand.
"""

import difflib
import functools
import hashlib
import importlib
import importlib.util
import inspect
import pkgutil
import sys
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self


class InputError(ValueError):
    """Bad input from the user: one line that names the offending value and the valid ones."""


class Plugin:
    """A class whose named subclasses can be chosen by name and built from keyword arguments."""

    kind: ClassVar[str]
    name: ClassVar[str]
    _choices: ClassVar[dict[str, type]]
    _package: ClassVar[str]

    def __init_subclass__(cls, kind: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if kind is not None:
            cls.kind, cls._choices = kind, {}
            cls._package = cls.__module__.rpartition(".")[0]
        elif "name" in vars(cls):
            if not cls.__module__.startswith(cls._package + "."):
                cls.choices()  # ours first, so that a clash is reported against the newcomer
            known = cls._choices.get(cls.name)
            if known is not None and known.__module__ != cls.__module__:
                raise InputError(
                    f"{cls.kind} {cls.name!r} is already defined in {known.__module__}: "
                    "choose another name"
                )
            cls._choices[cls.name] = cls

    @classmethod
    def choices(cls) -> dict[str, type[Self]]:
        """Every choice of this kind by name, in alphabetical order."""
        discover(cls._package)
        return dict(sorted(cls._choices.items()))

    @classmethod
    def choose(cls, name: str) -> type[Self]:
        """The choice called ``name``.

        Raises:
            InputError: nothing of this kind has that name.
        """
        choices = cls.choices()
        if not isinstance(name, str) or name not in choices:
            raise InputError(f"unknown {cls.kind} {name!r}{suggestion(name, choices)}")
        return choices[name]

    @classmethod
    def make(cls, name: str, parameters: Mapping[str, Any] | None = None) -> Self:
        """The choice called ``name``, built from its parameters.

        Raises:
            InputError: unknown name or parameter, or a value that is refused.
        """
        chosen = cls.choose(name)
        return chosen(**chosen.complete(parameters))

    @classmethod
    def at_least(cls, least: int, **values: float | None) -> None:
        """Refuse parameters below ``least``, and NaN; None passes.

        Raises:
            InputError: naming the choice, the parameter and its value.
        """
        for key, value in values.items():
            if value is not None and not value >= least:
                raise InputError(
                    f"{cls.kind} {cls.name!r}: {key} must be {least} or more, not {value}"
                )

    @classmethod
    @functools.cache
    def parameters_of(cls) -> dict[str, inspect.Parameter]:
        """The constructor's keyword-only parameters, those of parent classes included.

        A subclass that overrides a parent's default states the parameter again; ``**kwargs``
        passes the others through.
        """
        found: dict[str, inspect.Parameter] = {}
        for owner in cls.__mro__:
            if "__init__" not in vars(owner):
                continue
            if not issubclass(owner, Plugin):
                break
            init = vars(owner)["__init__"]
            hints = typing.get_type_hints(init)
            parameters = inspect.signature(init).parameters.values()
            for p in parameters:
                if p.kind is p.KEYWORD_ONLY and p.name not in found:
                    found[p.name] = p.replace(annotation=hints.get(p.name, Any))
            if not any(p.kind is p.VAR_KEYWORD for p in parameters):
                break
        return found

    @classmethod
    def complete(cls, given: Mapping[str, Any] | None) -> dict[str, Any]:
        """``given`` checked against the constructor, with every default filled in.

        Raises:
            InputError: an argument that the constructor lacks, one of the wrong type, or a
                missing one that has no default.
        """
        given, parameters = dict(given or {}), cls.parameters_of()
        where = f"{cls.kind} {cls.name!r}"
        for key in given:
            if key not in parameters:
                raise InputError(f"{where} has no parameter {key!r}{suggestion(key, parameters)}")
        values = {}
        for key, p in parameters.items():
            if key in given:
                values[key] = checked(given[key], p.annotation, f"{where}: {key}")
            elif p.default is p.empty:
                raise InputError(f"{where} needs a value for {key!r}")
            else:
                values[key] = p.default
        return values


@functools.cache
def discover(package_name: str) -> None:
    """Import every module of a package, so that the plug-ins they define register."""
    package = importlib.import_module(package_name)
    for module in pkgutil.iter_modules(package.__path__, package_name + "."):
        importlib.import_module(module.name)


def suggestion(name: object, valid: typing.Iterable[str]) -> str:
    """The end of an error's line: the nearest valid name, and all of them."""
    names = sorted(valid)
    near = difflib.get_close_matches(str(name), names, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"{hint}; valid: {', '.join(names) or 'none'}"


def checked(value: Any, hint: Any, where: str) -> Any:
    """``value`` as the type ``hint``: numbers widen, text such as ``1e-3`` is read as a number.

    Raises:
        InputError: it is of another type.
    """
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin is typing.Literal:
        if value in args:
            return value
        raise InputError(f"{where}: {value!r} is not one of {', '.join(map(repr, args))}")
    if origin in (typing.Union, types.UnionType):
        for arg in args:
            try:
                return checked(value, arg, where)
            except InputError:
                continue
    elif hint is type(None):
        if value is None:
            return None
    elif hint is float:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        if isinstance(value, str):  # YAML 1.1 reads 1e-3 as text
            try:
                return float(value)
            except ValueError:
                pass
    elif hint is int:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    elif origin in (tuple, list):
        if isinstance(value, (tuple, list)):
            items = [checked(v, args[0] if args else Any, where) for v in value]
            return origin(items)
    elif isinstance(hint, type) and isinstance(value, hint):
        return value
    expected = getattr(hint, "__name__", None) if origin is None else str(hint)
    raise InputError(f"{where}: {value!r} is not of type {expected or hint}")


def loaded_files() -> list[str]:
    """The user's own files that this process has imported."""
    modules = list(sys.modules.items())
    return [str(m.__file__) for name, m in modules if name.startswith("aebench_file_")]


def load_file(path: str | Path) -> types.ModuleType:
    """Import a user's own file, so that the plug-ins it defines can be chosen. Once a process.

    Raises:
        InputError: there is no such file, importing it fails, or it defines no plug-in.
    """
    path = Path(path).expanduser().resolve()
    if not path.is_file():
        raise InputError(f"no such file: {path}")
    module_name = f"aebench_file_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"not a Python file: {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except InputError as error:
        del sys.modules[module_name]
        raise InputError(f"{path}: {error}") from None
    except Exception as error:
        del sys.modules[module_name]
        raise InputError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    held = [value for value in vars(module).values() if isinstance(value, type)]
    if not any(c.__module__ == module_name and issubclass(c, Plugin) for c in held):
        del sys.modules[module_name]
        raise InputError(f"{path} defines nothing to choose, such as a subclass of Autoencoder")
    return module
