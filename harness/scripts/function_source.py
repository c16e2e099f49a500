"""Whether a function is where a sweep file says, by its source: nothing of it is imported or run."""

from __future__ import annotations

import ast
import importlib.machinery
import importlib.util
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from harness.common.errors import HarnessError, did_you_mean

_MOST_BYTES = 2**22  # of a module that is looked at
_OFFERED = ("seed", "out", "report")  # what a function may take beside its axes
_BINDING = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def check(module: str, function: str, folders: Sequence[Path], settings: Collection[str]) -> None:
    """Raise HarnessError where a module is not there, can't be parsed, or has no such function for these settings.

    Args:
        module: Its name, with dots.
        function: The name in it.
        folders: Where a run looks before the installed packages, in this order.
        settings: The names of what the function is called with, beside `seed`, `out` and `report`.
    """
    path = _file(module, folders)
    if path is None or path.suffix != ".py" or path.stat().st_size > _MOST_BYTES:
        return
    try:
        tree = ast.parse(path.read_bytes(), str(path))
    except (SyntaxError, ValueError, RecursionError) as error:
        line = getattr(error, "lineno", None)
        where = f"line {line}: " if line else ""
        raise HarnessError(f"the function's module {path} cannot be parsed: {where}{_words(error)}") from None
    names = dict(_bound(tree.body))
    if function in names:
        definition = names[function]
        if isinstance(definition, ast.FunctionDef) and not definition.decorator_list:
            _check_arguments(definition, f"{module}:{function}", settings)
        return
    if "*" in names or "__getattr__" in names:  # it may come from elsewhere
        return
    meant = did_you_mean(function, [name for name in names if not name.startswith("_")])
    functions = [name for name, node in names.items() if isinstance(node, ast.FunctionDef) and not name.startswith("_")]
    raise HarnessError(
        f"the module {module} has no {function}{meant}",
        got=f"function: {module}:{function}, looked for in {path}",
        allowed=", ".join(functions[:10]) or None,
    )


def _words(error: Exception) -> str:
    return str(getattr(error, "msg", None) or error)[:200]


def _file(module: str, folders: Sequence[Path]) -> Path | None:
    """The file of a module; None where that can't be told without importing what is around it.

    Raises HarnessError where there is none.
    """
    package, *inner = module.split(".")
    places = [folder for folder in folders if (folder / package).is_dir() or (folder / f"{package}.py").is_file()]
    if places:
        base = [places[0]]
    else:
        spec = importlib.util.find_spec(package)  # of a package at the top: imports nothing
        if spec is None:
            where = folders[0].resolve()
            raise HarnessError(
                f"the function's module {module} is not there", fix=f"Put {package}.py into {where}, or set cwd:"
            )
        if not inner:
            return None if spec.origin is None else Path(spec.origin)
        if spec.submodule_search_locations is None:
            raise HarnessError(f"the function's module {module} is not there: {package} is a module, no package")
        base = [Path(location) for location in spec.submodule_search_locations]
        package, inner = inner[0], inner[1:]
    for position, name in enumerate([package, *inner]):
        last = position == len(inner)
        file = _module_in(base, name) if last else None
        if last:
            if file is None and not any((folder / name).is_dir() for folder in base):
                raise HarnessError(
                    f"the function's module {module} is not there: {base[0].resolve()} has no {name}.py",
                    fix="Check its name, or set cwd:",
                )
            return file
        base = [folder / name for folder in base if (folder / name).is_dir()]
        if not base:
            raise HarnessError(f"the function's module {module} is not there: no package {name}", fix="Check its name")
    return None


def _module_in(folders: Sequence[Path], name: str) -> Path | None:
    """The file that Python takes for a module of this name, as it looks: a package before a module."""
    endings = (*importlib.machinery.EXTENSION_SUFFIXES, ".py")
    for folder in folders:
        files = (folder / name / "__init__.py", *(folder / f"{name}{ending}" for ending in endings))
        for file in files:
            if file.is_file():
                return file
    return None


def _bound(body: Sequence[ast.stmt]) -> Iterator[tuple[str, ast.stmt]]:
    """The names that statements at the top of a module bind, each with its statement; `*` for an import of all."""
    for node in body:
        if isinstance(node, _BINDING):
            yield node.name, node
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                yield alias.asname or alias.name.partition(".")[0], node
        else:
            for inner in ast.walk(node):
                if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
                    yield inner.id, node
                elif isinstance(inner, (*_BINDING, ast.Import, ast.ImportFrom)):
                    for name, _ in _bound([inner]):
                        yield name, node


def _check_arguments(function: ast.FunctionDef, name: str, settings: Collection[str]) -> None:
    """Raise HarnessError where a function does not take a setting, or needs something that nothing gives."""
    given = function.args
    known = [argument.arg for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    if given.kwarg is None and (unknown := [setting for setting in settings if setting not in known]):
        raise HarnessError(
            f"{name} takes no {unknown[0]}",
            allowed=", ".join(known) or None,
            fix="Add it to its parameters, or remove it",
        )
    plain = [argument.arg for argument in (*given.posonlyargs, *given.args)]
    required = plain[: len(plain) - len(given.defaults)]
    required += [
        argument.arg for argument, default in zip(given.kwonlyargs, given.kw_defaults, strict=True) if default is None
    ]
    lacking = [argument for argument in required if argument not in (*settings, *_OFFERED)]
    if lacking:
        raise HarnessError(
            f"{name} needs {lacking[0]}, which nothing gives",
            allowed=", ".join((*settings, *_OFFERED)),
            fix=f"Write {lacking[0]}: [values] in the sweep file, or give it a default",
        )
