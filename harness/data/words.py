"""Where one word ends and the next begins: at blanks, or where MeCab says so for Japanese."""

import importlib.util
import re
from collections.abc import Callable, Sequence

from harness.common.errors import HarnessError
from harness.common.extras import install_command

_KANA = re.compile("[\u3041-\u30ff]")
Split = Callable[[str], list[str]]


def japanese(texts: Sequence[str]) -> bool:
    """Whether at least half of the texts have kana: there no blanks part the words."""
    return 2 * sum(bool(_KANA.search(text)) for text in texts) >= len(texts)


def check_mecab(task: str, otherwise: str) -> None:
    """Raise HarnessError where MeCab is not installed, which a Japanese task needs, or `otherwise`."""
    if not all(map(importlib.util.find_spec, ("fugashi", "unidic_lite"))):
        raise lacking(f"the Japanese task {task} requires MeCab, which is not installed", "japanese", otherwise)


def lacking(problem: str, extra: str, otherwise: str) -> HarnessError:
    """Make the error for an extra that is not installed."""
    return HarnessError(problem, fix=f"Install it ({install_command(extra)}), or use {otherwise}")


def mecab(blanks: bool = False) -> Split:
    """The words of a text by MeCab; with the blanks before each where they are asked for."""
    from fugashi import Tagger

    tagger = Tagger()
    if blanks:
        return lambda text: [word.white_space + word.surface for word in tagger(text)]
    return lambda text: [word.surface for word in tagger(text)]
