"""Every command that is printed can be typed: in README and docs, the help, messages, reports and after each command.

All are parsed as the command line would parse them; those that a small sweep can answer are run.
"""

import ast
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import harness
from harness.cli.app import app
from harness.common.spare_process import SpareProcess
from harness.config.recipe import ModelSpec, TaskSpec
from harness.config.trials import expand
from harness.execution import machine, pools, sweep_training
from harness.execution.machine import Machine
from harness.records.store import Store

ROOT = Path(harness.__file__).parents[1]
GROUP: Any = typer.main.get_command(app)
COMMANDS: dict[str, Any] = GROUP.commands
UNKNOWN = "0"  # what stands for a value that is not known before the message is printed


# ------------------------------------------------------------------------------------------------- where they stand


def in_text(text: str) -> Iterator[str]:
    """Commands in Markdown: in spans of code, and the lines of shell blocks."""
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        for line in block.splitlines():
            command = re.sub(r"\s+#.*", "", line.strip())
            if command.startswith(("harness ", "make ")):
                yield command
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    for span in re.findall(r"`((?:harness|make)\s[^`]+)`", prose):
        yield " ".join(span.split())


def in_code() -> Iterator[str]:
    """Commands in the strings of the package, with a stand-in for what is filled in, and in its templates."""
    for path in sorted((ROOT / "harness").rglob("*.py")):
        if not re.search(r"`harness\b", code := path.read_text()):
            continue
        for node in ast.walk(ast.parse(code)):
            text = ""
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = node.value
            elif isinstance(node, ast.JoinedStr):
                text = "".join(str(p.value) if isinstance(p, ast.Constant) else UNKNOWN for p in node.values)
            for span in re.findall(r"`(harness\s[^`]+)`", text):
                yield " ".join(span.split())
    for path in sorted((ROOT / "harness").rglob("*.j2")):
        yield from re.findall(r"(?:`|<code>)(harness\s[^`<]+)", path.read_text())


def elsewhere() -> Iterator[str]:
    """Commands in the comments of the Makefile and of what is shipped to start Ray."""
    for line in (ROOT / "Makefile").read_text().splitlines():
        if found := re.match(r"# (make \w+ [A-Z]+=\S+(?: [A-Z]+=\S+)*)", line):
            yield found[1]
    for path in sorted((ROOT / "deploy").iterdir()):
        yield from re.findall(r"^#\s+(harness \S.*)$", path.read_text(), re.MULTILINE)


def as_harness(command: str) -> str | None:
    """What make would run; None for a target that runs something else."""
    if not command.startswith("make "):
        return command
    words = shlex.split(command)[1:]
    if not re.fullmatch("sweep|search|plan|report|status|verify|rerun|pretrain", words[0]):
        targets = re.findall(r"^([\w -]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert words[0] in " ".join(targets).split(), command
        return None
    ready = ["-o", ".venv/.ready"]  # which is there
    done = subprocess.run(["make", "-n", *ready, *words], cwd=ROOT, capture_output=True, text=True, check=True)
    (line,) = [line for line in done.stdout.splitlines() if "harness" in line]
    return re.sub(r"^\S*harness", "harness", line.strip())


def parsed(command: str) -> None:
    """Hold that the command line takes a command: its name, its options and, where all of it is given, their values."""
    words = shlex.split(re.sub(r"\s\d?>\s?\S+$", "", command).replace("[…]", "…"))  # without a shell's ">log"
    assert words[0].endswith("harness"), command
    name, given = words[1], words[2:]
    if name.startswith("--"):
        assert name in {option for one in GROUP.params for option in one.opts}, command
        return
    assert name in COMMANDS, command
    known = {option for one in COMMANDS[name].params for option in (*one.opts, *one.secondary_opts)} | {"--help"}
    for word in given:
        if word.startswith("--"):
            assert word.partition("=")[0] in known, f"{command}: {word}"
    whole = "--help" not in given and not any(
        re.search(r"[…$]", word) or word in (UNKNOWN, "K", "S", "N") for word in given
    )
    needed = sum(one.required and one.param_type_name == "argument" for one in COMMANDS[name].params)
    if whole and len([word for word in given if not word.startswith("--")]) >= needed:
        COMMANDS[name].make_context(name, [*given])  # raises a UsageError


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
WRITTEN = sorted({*(one for page in PAGES for one in in_text(page.read_text())), *in_code(), *elsewhere()})


def test_the_collection_finds_what_it_is_to_find() -> None:
    assert len(WRITTEN) > 80
    assert "harness predict mine texts.tsv --ensemble lr=2e-5 --ensemble bias_correction=on" in WRITTEN
    assert "make rerun SWEEP=rte_lr SEED=7 LR=6e-4 BC=off EPOCHS=3" in WRITTEN
    assert any(command.startswith("harness rerun") and command.endswith("--keep") for command in WRITTEN)
    with pytest.raises(AssertionError, match="--nonsense"):
        parsed("harness sweep rte_lr --nonsense")
    with pytest.raises(AssertionError, match="harness swep"):
        parsed("harness swep rte_lr")
    with pytest.raises(Exception, match="valid integer"):
        parsed("harness sweep rte_lr --max-trials many")


@pytest.mark.parametrize("command", WRITTEN)
def test_what_is_written_is_what_the_command_line_takes(command: str) -> None:
    known = as_harness(command)
    if known is not None:
        parsed(known)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_help_can_be_read_and_names_commands_there_are(name: str) -> None:
    shown = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert shown.exit_code == 0
    for span in re.findall(r"`(harness\s[^`]+)`", shown.output):
        parsed(" ".join(span.split()))


# ----------------------------------------------------------------------------------------------------- what is run


@pytest.fixture
def here(tmp_path: Path, bert: ModelSpec, data: TaskSpec, monkeypatch: pytest.MonkeyPatch, no_figures: None) -> Path:
    """A folder as the README has it: a sweep `mine` of a model and data of one's own, and texts to predict on."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(machine, "detect_hardware", lambda: Machine(2, 2**34, ()))
    monkeypatch.setattr(sweep_training, "open_pool", _in_process(pools.open_pool))
    monkeypatch.setattr(SpareProcess, "start", lambda spare: None)  # nothing trains elsewhere while it imports
    assert data.files is not None
    shutil.copytree(str(bert.folder), "my-bert")
    (tmp_path / "data" / "reviews").mkdir(parents=True)
    for name, path in (("train", data.files.train), ("dev", data.files.validation)):
        text = Path(path).read_text().replace("text\tlabel", "sentence\tstars", 1)
        (tmp_path / "data" / "reviews" / f"{name}.tsv").write_text(text)
    readme = (ROOT / "README.md").read_text()
    (yaml,) = re.findall(r"```yaml\n(# sweeps/mine.yaml.*?)```", readme, re.DOTALL)
    small = yaml.replace("lr: [1e-5, 2e-5, 5e-5]", "lr: [2e-5]").replace("seeds: 1..10", "seeds: 3..4")
    assert small.count("\n") == yaml.count("\n")
    assert "seeds: 3..4" in small
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "mine.yaml").write_text(small)
    (tmp_path / "texts.tsv").write_text("sentence\tstars\ngood a\tyes\nbad b\tno\n")
    return tmp_path


def _in_process(real: Callable[..., Any]) -> Callable[..., Any]:
    def pool(sweep: Any, options: Any, *more: Any) -> Any:
        return real(sweep, replace(options, in_process=True), *more)

    return pool


def run(command: str, *codes: int) -> str:
    """What a command says on both of its streams."""
    done = CliRunner().invoke(app, shlex.split(command)[1:])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code in (codes or (0,)), f"{command}\n{done.output}"
    return done.output


def printed(text: str) -> list[str]:
    """The commands in what a command said: in quotes, or to the end of a line."""
    spans = [" ".join(span.split()) for span in re.findall(r"`(harness\s[^`]+)`", text)]
    return spans + re.findall(r"(?:: |^)(harness \S[^`\n]*)$", text, re.MULTILINE)


def test_the_commands_of_the_docs_and_what_they_print_are_run(here: Path) -> None:
    pages = [ROOT / "docs" / "how-to" / f"{name}.md" for name in ("keep-predict-export", "rerun-and-verify")]
    commands = [one for page in pages for one in in_text(page.read_text()) if re.match(r"harness \w+ mine\b", one)]
    commands += ["harness data mine", "harness data train.tsv dev.tsv --set task.text=sentence --set task.label=stars"]
    assert set(commands) <= set(WRITTEN)
    for name in ("train", "dev"):
        shutil.copy(here / "data" / "reviews" / f"{name}.tsv", here)
    said = run("harness plan mine") + run("harness sweep mine --max-trials 1")
    said += run("harness status mine")
    said += run("harness predict mine texts.tsv", 2) + run("harness predict results/mine@default texts.tsv", 2)
    trial = next(iter(path.stem for path in Path("results/mine@default/trials").glob("*.json")))
    said += run(f"harness predict mine texts.tsv --trial {trial}", 2)
    said += run("harness sweep mine --keep all")
    said += run("harness predict mine texts.tsv --ensemble bias_correction=off", 0, 2)
    followed = dict.fromkeys(printed(said))
    assert {f"harness rerun mine --profile default --trial {trial} --keep"} <= set(followed)
    assert any("--keep best" in one for one in followed)
    for command in followed:
        run(command)
    kept = [path.name for path in Path("results/mine@default/models").iterdir()]
    assert len(kept) == 4
    shown = 0
    for command in dict.fromkeys(commands):
        if "export" in command:  # without the store's package it is one line
            said = run(command, 0, 2)
            assert "Look at them: " in said or "pip install " in said
        else:
            run(command.replace("--trial ID", f"--trial {trial}"))
        shown += 1
    assert shown >= 7
    assert (here / "answers.tsv").read_text().startswith("label\tconfidence\n")
    plan = Store(Path("results/mine@default")).load_plan()
    assert plan is not None
    rows = Path("results/mine@default/report/tables/runs.csv").read_text()
    for one in expand(plan):
        assert f"harness rerun mine --profile default --trial {one.id}" in rows
        parsed(f"harness rerun mine --profile default --trial {one.id}")


def test_an_import_is_reported_by_what_it_prints(here: Path) -> None:
    command = next(one for one in WRITTEN if one.startswith("harness import runs.csv"))
    (here / "sweeps" / "mine.yaml").unlink()
    rows = [f"sst,full,{seed},{0.8 + seed / 100}" for seed in range(5)]
    (here / "runs.csv").write_text("\n".join(["dataset,method,seed,test_acc", *rows]) + "\n")
    (again,) = printed(run(command))
    assert "Report: " in run(again)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_commands_help_ends_with_an_example_of_it(name):
    words = COMMANDS[name].help.split("\n\n")
    assert all("\n" not in paragraph for paragraph in words)  # the terminal breaks lines, at its own width
    example = re.fullmatch(r"Example: harness (.*)", words[-1])
    command, *arguments = shlex.split(example[1])
    assert command == name
    COMMANDS[name].make_context(name, arguments)
