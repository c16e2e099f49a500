"""The command of one run, from the template and the values of its cell."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from harness.common.errors import HarnessError
from harness.config.script import ScriptRecipe
from harness.config.trials import Trial
from harness.scripts import function_source

# What runs a script that is named first, and the ending by which it is known as one.
_ANY = "\uf8ff"  # a letter of no use: Python and folders, where commands of two places are compared
_SCRIPTS = (("python", ".py"), ("sh", ".sh"), ("bash", ".sh"), ("Rscript", ".R"), ("julia", ".jl"))


def words_of(trial: Trial, folder: str) -> list[str]:
    """The words of a trial's command; `folder` is what `{out}` stands for.

    A placeholder stands for one word or a part of one, whatever it holds; an empty one that stands alone is left out,
    and one that the sweep file spells out (`{on: --amsgrad --beta 1}`) may be several.
    """
    assert trial.script is not None
    script = trial.script.script
    filled = trial.script.filled(trial.seeds.seed, folder)
    if script.function is not None:
        return [sys.executable, "-m", "harness.scripts.function", script.function, folder]
    assert script.command is not None
    if script.shell:
        quoted = {
            name: text if name in dict(trial.script.words) else shlex.quote(text) for name, text in filled.items()
        }
        return ["sh", "-c", script.command.format_map(quoted)]
    return _filled(trial.script, filled)


def _filled(recipe: ScriptRecipe, filled: Mapping[str, str]) -> list[str]:
    """The words of a command that no shell reads, with the texts of its placeholders."""
    script, spelled = recipe.script, dict(recipe.words)
    assert script.command is not None
    words: list[str] = []
    for word in shlex.split(script.command):
        name = word[1:-1] if word.startswith("{") and word.endswith("}") else ""
        if name in spelled:
            words += shlex.split(spelled[name])
        else:
            words.append(word.format_map(filled))
    return words


def may_be_of(command: str, trial: Trial) -> bool:
    """Whether a command, as `shown` gave it somewhere, is a trial's: Python and the folders may be any.

    A function's and one that a shell reads are not looked at.
    """
    assert trial.script is not None
    script = trial.script.script
    if script.command is None or script.shell:
        return True
    filled = trial.script.filled(trial.seeds.seed, _ANY) | {"here": _ANY, "python": _ANY}
    try:
        ours, theirs = _filled(trial.script, filled), shlex.split(command)
    except ValueError:  # quotes that do not end
        return False
    alike = (
        re.fullmatch(re.escape(one).replace(_ANY, ".*"), other, re.DOTALL)
        for one, other in zip(ours, theirs, strict=False)
    )
    return len(ours) == len(theirs) and all(alike)


def shown(trial: Trial, folder: str) -> str:
    """The command as a person would type it."""
    return shlex.join(words_of(trial, folder))


def check(trial: Trial) -> None:
    """Raise HarnessError where a command's program or script is not there."""
    assert trial.script is not None
    script = trial.script.script
    if script.function is not None:
        _check_function(trial.script)
    if script.command is None or script.shell:
        return
    words = words_of(trial, "out")
    program = words[0]
    here = Path(script.cwd or ".")
    if shutil.which(program) is None and not (here / program).is_file():
        raise HarnessError(f"the command's program '{program}' is not found", fix="Check its name, or give its path")
    named = next((word for word in words[1:] if not word.startswith("-")), "")
    kind = Path(program).name
    if any(kind.startswith(one) and named.endswith(ending) for one, ending in _SCRIPTS):
        file = here / named
        if not file.is_file():
            raise HarnessError(f"the script {file} is not there", fix="Check the path, or set cwd: to its folder")


def _check_function(recipe: ScriptRecipe) -> None:
    """Raise HarnessError for a function that is neither in the folder nor installed; imports nothing."""
    script = recipe.script
    assert script.function is not None
    module, _, function = script.function.partition(":")
    here = Path(script.cwd or ".")
    if module.endswith(".pkl"):  # that `harness.study` wrote
        if not (here / module).is_file():
            raise HarnessError(f"the function's file {here / module} is not there", fix="Call harness.study again")
        return
    paths = dict(script.env).get("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    folders = [here, *(here / folder for folder in paths.split(os.pathsep) if folder)]
    function_source.check(module, function, folders, [name for name, _ in recipe.settings])
