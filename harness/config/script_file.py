"""Reading a sweep file of somebody else's training code: `command:` or `function:`, any axes, where the score is."""

from __future__ import annotations

import hashlib
import itertools
import re
import shlex
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from harness.common.errors import HarnessError, describe_os_error, describe_value
from harness.common.text import Scalar, same_value, show
from harness.config.axes import FILTERS, filtered, refuse_many
from harness.config.field_types import unknown_key, wrong_value
from harness.config.recipe import Recipe, Seeds
from harness.config.score_sources import EXAMPLE, read_predictions, read_source
from harness.config.script import GIVEN, Resources, Script, ScriptRecipe, check_placeholders, placeholders
from harness.config.search_file import given_of, largest_of, read_range, settings_of
from harness.config.search_space import Range, Search
from harness.config.trials import Cell
from harness.config.yaml_reader import parse_yaml, require_mapping

STARTERS = ("command", "function")  # either of which makes a sweep one of a script
KEYS = (
    *STARTERS, "shell", "env", "cwd", "inputs", "timeout", "retries", "repeats", "resources", "score", "better", "also",
    "curves", "predictions", "model_out", "keep_out", "majority", "failed_below", "metric",
)  # fmt: skip
_NAME = re.compile(r"[^\W\d]\w*")
# A module, or the file that `harness.study` writes of a function that is in none.
_FUNCTION = re.compile(r"(?:[^\W\d][\w.]*|[\w./-]+\.pkl):[^\W\d]\w*")
_REDIRECTION = re.compile(r"[0-9&]?(>>?|<)(?!=)")  # at a word's beginning
_TIME = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?", re.IGNORECASE)


def is_script(content: Mapping[str, Any]) -> bool:
    """Whether a sweep file's content is of a script."""
    return any(key in content for key in STARTERS)


def check_key(key: str, others: tuple[str, ...], where: str) -> None:
    """Raise HarnessError for a key that can be no axis of a script."""
    if key in (*others, *KEYS):
        return
    if key == "seed":
        raise HarnessError(f"{where}: 'seed' is no key (did you mean 'seeds'?)", fix="Write seeds: 1..5")
    if key in GIVEN or not _NAME.fullmatch(key):
        raise HarnessError(
            f"{where}: '{key}' cannot be the name of an axis",
            allowed=f"a word of letters, digits and _, other than {', '.join(GIVEN)}",
        )


def read_script_cells(content: Mapping[str, Any], others: tuple[str, ...], here: Path) -> tuple[Cell, ...]:
    """The cells of a script sweep: the product of its axes in the file's order, filtered by include and exclude.

    Args:
        content: The file's content, profile and settings merged.
        others: The keys that are the sweep's own and no axis.
        here: The folder of the sweep file.

    Raises:
        HarnessError: The script can't be run or nothing would tell its runs apart.
    """
    for key in ("recipes", "record", "baselines"):
        if key in content:
            raise HarnessError(f"{key} cannot be used in the sweep of a script", fix="Remove it")
    given = {key: value for key, value in content.items() if key not in (*KEYS, *others)}
    axes = {key: _axis(key, value) for key, value in given.items() if isinstance(value, list | dict)}
    fixed = {key: _scalar(key, value) for key, value in given.items() if key not in axes}
    script = _script(content, tuple(axes), fixed, here)
    refuse_many("cells", [len(values) for values in axes.values()])
    cells = []
    for combination in itertools.product(*(values.items() for values in axes.values())):
        values = tuple(zip(axes, (value for (_, value), _ in combination), strict=True))
        words = tuple((axis, word) for axis, (_, word) in zip(axes, combination, strict=True) if word is not None)
        settings = (*fixed.items(), *values)
        cells.append(Cell(axes=values, recipe=ScriptRecipe(script=script, settings=settings, words=words)))
    shown = {name: [value for _, value in values] for name, values in axes.items()}
    return filtered(cells, {key: content[key] for key in FILTERS if key in content}, shown)


def read_script_search(
    content: Mapping[str, Any], others: tuple[str, ...], here: Path, seeds: tuple[Seeds, ...]
) -> tuple[Search, tuple[Cell, ...]]:
    """What is searched of a script's settings, and a cell at the largest values; as `search_file.read_search`."""
    written = given_of(content, seeds)
    given = {key: value for key, value in content.items() if key not in (*KEYS, *others)}
    for key, value in ((key, value) for key, value in content.items() if key in (*given, *FILTERS)):
        if isinstance(value, list | dict) or key in FILTERS:
            raise HarnessError(
                f"{key} cannot be used beside search, which chooses the cells itself",
                got=describe_value(value),
                fix=f"Move {key} into search.space" if key in given else f"Remove {key}",
            )
    if written.get("pruner") is not None:
        raise HarnessError(
            "search.pruner cannot be used in the search of a script: it compares recipes by all their seeds at once, "
            "and a script's seeds run one by one",
            fix="Remove it",
        )
    space: list[Range] = []
    for field, value in require_mapping(written.get("space"), "search.space").items():
        check_key(field, (), "search.space")
        ends = [value.get(end) for end in ("low", "high")] if isinstance(value, dict) else []
        kind = "integer" if ends and all(isinstance(end, int) for end in ends) else "number"
        dimension = read_range(field, value, space, kind, partial(_choices, field))
        if (field in given) != bool(dimension.when):
            raise HarnessError(
                f"{field} stands both in search.space and beside search"
                if field in given
                else f"{field} has no value for where its `when` does not hold",
                fix=f"A value beside search is for a range with `when`, which needs one (for example: {field}: 1)",
            )
        space.append(dimension.model_copy(update={"otherwise": given.get(field)}))
    if not space:
        raise HarnessError(
            "search.space is empty (for example: search: {space: {lr: {low: 1e-5, high: 1e-3, log: on}}})"
        )
    lower = not _better(content.get("better", "higher"))
    search = settings_of(written, tuple(space), seeds).model_copy(update={"lower_is_better": lower})
    fixed = {key: _scalar(key, value) for key, value in given.items()}
    names = tuple(dimension.field for dimension in space)
    script = _script(content, names, {key: value for key, value in fixed.items() if key not in names}, here)
    axes = tuple(largest_of(space).items())
    return search, (Cell(axes=axes, recipe=ScriptRecipe(script=script, settings=tuple((fixed | dict(axes)).items()))),)


def _choices(field: str, values: list[Any]) -> tuple[Scalar, ...]:
    return tuple(value for _, value in _axis(field, values))


def _axis(key: str, value: list[Any] | dict[str, Any]) -> dict[tuple[int, Scalar], str | None]:
    """The values of an axis and what each becomes on the command line; numbered, since 1 and on are one key."""
    if not value:
        raise HarnessError(f"{key} has an empty list of values", fix="Add a value")
    pairs: list[tuple[Scalar, str | None]] = []
    if isinstance(value, list):
        pairs = [(_scalar(key, one), None) for one in value]
    else:
        for name, word in value.items():
            if isinstance(word, list | dict):
                raise HarnessError(
                    f"{key}.{name} must be what the value becomes on the command line", got=describe_value(word)
                )
            pairs.append((_scalar(key, parse_yaml(name, key)), "" if word is None else str(word)))
    for index, (one, _) in enumerate(pairs):
        if any(same_value(one, other) for other, _ in pairs[:index]):
            raise HarnessError(f"{key} lists the value {show(one)} twice", fix="Remove one")
    return {(index, one): word for index, (one, word) in enumerate(pairs)}


def _scalar(key: str, value: object) -> Scalar:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise HarnessError(f"{key} must be a single value or a flat list of values", got=describe_value(value))


# ------------------------------------------------------------------------------------------------------- the script


def _script(content: Mapping[str, Any], axes: tuple[str, ...], fixed: Mapping[str, Scalar], here: Path) -> Script:
    command, function = (_text(content, key) for key in STARTERS)
    if command is not None and function is not None:
        raise HarnessError("command and function are both given", fix="Leave one out")
    shell = _switch(content, "shell")
    has_out = True
    if command is not None:
        check_placeholders(command, axes, fixed, KEYS)
        has_out = "out" in placeholders(command)
        if not shell:
            _check_words(command)
    else:
        assert function is not None
        if not _FUNCTION.fullmatch(function):
            raise HarnessError(
                "function must name a module and a function", got=describe_value(function), allowed="module:function"
            )
        if shell:
            raise HarnessError("shell is of a command, not of a function", fix="Remove it")
    if "score" not in content and function is None:
        raise HarnessError(f"missing required key 'score' (for example: {EXAMPLE})")
    cwd = _text(content, "cwd")
    if cwd is not None and not Path(cwd).is_dir():
        raise HarnessError("cwd is no folder here", got=f"'{cwd}'", fix="Check the path")
    score = content.get("score", {"file": "result.json", "key": "score"})
    also = require_mapping(content.get("also", {}), "'also'")
    model = _text(content, "model_out")
    if model is not None and (Path(model).is_absolute() or ".." in Path(model).parts or Path(model) == Path()):
        raise HarnessError(
            "model_out must be a file or folder in {out}", got=f"'{model}'", fix="Write its path in {out}, as best"
        )
    return Script(
        command=command,
        function=function,
        shell=shell,
        here=str(here),
        cwd=cwd,
        env=_env(content.get("env", {})),
        inputs=_inputs(content.get("inputs", []), cwd, here),
        timeout=_seconds(content.get("timeout")),
        retries=_whole(content, "retries", 1),
        repeats=_whole(content, "repeats", 1),
        resources=_resources(content.get("resources", {})),
        score=read_source("score", score, has_out),
        higher_is_better=_better(content.get("better", "higher")),
        also=tuple((name, read_source(f"also.{name}", value, has_out)) for name, value in also.items()),
        curves=_curves(content.get("curves", {}), has_out),
        predictions=read_predictions(content["predictions"]) if "predictions" in content else None,
        model_out=model,
        keep_out=_switch(content, "keep_out", default=True),
        metric=_text(content, "metric") or _metric(score),
        **_judged(content),
    )


def _check_words(command: str) -> None:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise HarnessError(f"the command's quotes do not fit: {error}", got=f"'{command}'") from None
    if not words:
        raise HarnessError("command is empty", fix="Write what is run, as python train.py --seed {seed}")
    for word in words:
        if word in ("|", "||", "&", "&&") or word.endswith(";") or _REDIRECTION.match(word):
            raise HarnessError(
                f"the command has {word}, which only a shell understands", fix="Add shell: on, or put it into a script"
            )


def _text(content: Mapping[str, Any], key: str) -> str | None:
    value = content.get(key)
    if value is not None and (not isinstance(value, str) or not value.strip()):
        raise HarnessError(f"{key} must be text", got=describe_value(value), fix="Put it in quotes")
    return value


def _switch(content: Mapping[str, Any], key: str, *, default: bool = False) -> bool:
    value = content.get(key, default)
    if not isinstance(value, bool):
        raise HarnessError(f"{key} must be on or off", got=describe_value(value))
    return value


def _whole(content: Mapping[str, Any], key: str, default: int) -> int:
    value = content.get(key, default)
    least = min(default, 1) if key == "repeats" else 0
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= 100:
        raise HarnessError(f"{key} must be a whole number from {least} to 100", got=describe_value(value))
    return value


def _better(value: object) -> bool:
    if value not in ("higher", "lower"):
        raise HarnessError("better must be higher or lower", got=describe_value(value))
    return value == "higher"


def _judged(content: Mapping[str, Any]) -> dict[str, float]:
    there = [key for key in ("majority", "failed_below") if content.get(key) is not None]
    if len(there) == 2:
        raise HarnessError("majority and failed_below are both given", fix="Leave one out")
    for key in there:
        value = content[key]
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < float("inf"):
            raise HarnessError(
                f"{key} must be a number on the scale of the score", got=describe_value(value), fix=f"Write {key}: 0.5"
            )
    return {key: float(content[key]) for key in there}


def _metric(score: object) -> str:
    """What the score is called where nobody says so: the last part of its key."""
    if isinstance(score, Mapping) and isinstance(score.get("key"), str) and "stdout" not in score:
        return str(score["key"]).rsplit(".", 1)[-1] or "score"
    return "score"


def _env(value: object) -> tuple[tuple[str, str], ...]:
    texts = []
    for name, text in require_mapping(value, "'env'").items():
        if isinstance(text, list | dict) or text is None or "=" in name:
            raise HarnessError(f"env.{name} must be text", got=describe_value(text))
        texts.append((name, text if isinstance(text, str) else show(text)))
    return tuple(texts)


def _seconds(value: object) -> float | None:
    if value is None:
        return None
    match = _TIME.fullmatch(value.replace(" ", "")) if isinstance(value, str) else None
    if match is None or not any(match.groups()):
        raise HarnessError("timeout must be a time such as 2h, 90m or 30s", got=describe_value(value))
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return 3600 * hours + 60 * minutes + seconds


def _resources(value: object) -> Resources:
    given = require_mapping(value, "'resources'")
    for key in given:
        if key not in Resources.model_fields:
            raise unknown_key(key, tuple(Resources.model_fields), "resources")
    numbers = {
        key: float(one) if isinstance(one, int) and key != "cpus" and not isinstance(one, bool) else one
        for key, one in given.items()
    }
    try:
        return Resources.model_validate(numbers)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0])
        raise wrong_value(Resources, name, first["input"], f"resources.{name}") from None


def _curves(value: object, has_out: bool) -> tuple[tuple[str, Any], ...]:
    given = require_mapping(value, "'curves'")
    for key in given:
        if key not in ("loss", "score"):
            raise unknown_key(key, ("loss", "score"), "curves")
    return tuple((name, read_source(f"curves.{name}", one, has_out)) for name, one in given.items())


def _inputs(value: object, cwd: str | None, here: Path) -> tuple[tuple[str, str], ...]:
    """Files whose content decides the result, each with its hash; a script's own file belongs here too."""
    names = value if isinstance(value, list) else [value]
    hashes = []
    for name in names:
        if not isinstance(name, str) or not name:
            raise HarnessError("inputs must be a list of files", got=describe_value(name))
        path = Path(cwd or ".") / name.replace("{here}", str(here))
        try:
            hashes.append((name, hashlib.sha256(path.read_bytes()).hexdigest()))
        except OSError as error:
            raise HarnessError(
                f"cannot read the input {path}: {describe_os_error(error)}", fix="Check the path"
            ) from None
    return tuple(hashes)


assert not set(KEYS) & set(Recipe.model_fields)  # so that a key tells what kind of sweep it belongs to
