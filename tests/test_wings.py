"""A wing imports earlier wings only, no two modules import each other, heavy packages stay in their homes."""

import ast
import graphlib
import subprocess
import sys
from functools import cache
from pathlib import Path

import harness

PACKAGE = Path(harness.__file__).parent
WINGS = (
    "common", "stats", "config", "data", "records", "scripts", "models", "analysis", "training", "report", "execution",
    "pretraining", "search", "serve", "cli",
)  # fmt: skip
# Which modules may import a heavy package; a name stands for all that lies under it.
HOMES = {
    "ray": (
        "execution.ray_cluster", "execution.ray_worker", "execution.ray_workers", "execution.script_worker",
        "search.ray_tune",
    ),
    "torch": (
        "common.loading", "data.paraphrase", "models", "training", "pretraining", "records.export",
        "execution.train_pack", "execution.pack_size",
    ),
    "mlflow": ("records.export", "records.importing.mlflow_store"),
    "wandb": ("records.export",),
    "transformers": ("common.loading", "data.paraphrase", "models", "training", "pretraining"),
    "tokenizers": ("pretraining",),
    "peft": ("models.methods",),
    "datasets": ("data.hub_data",),
    "matplotlib": ("report.figures",),
    "seaborn": ("report.figures",),
    "scipy": ("stats", "analysis", "execution.baselines"),
    "statsmodels": ("stats",),
    "sklearn": ("common.scorers", "stats", "execution.baselines"),
    "lightgbm": ("execution.baselines",),
    "fugashi": ("data.words",),
    "pyarrow": ("data.structured_files", "records.importing.plain_files"),
    "jinja2": ("report.page",),
    "typer": ("cli",),
    "rich": ("cli",),
    "starlette": ("serve",),
    "uvicorn": ("cli.serve_commands",),
    "yaml": ("config", "records.importing.lightning"),
    "optuna": ("stats.forest", "search", "records.importing.optuna_storage", "records.study_log"),
}  # fmt: skip
# Every command imports these, so at their top they import nothing that takes seconds.
EVERY_COMMAND_PAYS = (
    "config.sweep_file", "records.store", "records.study", "execution.driver", "execution.ray_workers",
    "execution.train_pack", "training.checkpoints", "models.keep_weights", "execution.packing", "cli.app",
)  # fmt: skip


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of the package by its name without `harness.`."""
    paths = PACKAGE.rglob("*.py")
    return {".".join(path.relative_to(PACKAGE).with_suffix("").parts): ast.parse(path.read_text()) for path in paths}


def when_it_runs(tree: ast.Module) -> list[ast.Import | ast.ImportFrom]:
    """The imports of a module, in functions too, without those for types alone."""
    for_types = [
        node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    ]
    left_out = {inside for node in for_types for statement in node.body for inside in ast.walk(statement)}
    return [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom) and node not in left_out]


@cache
def imported(name: str) -> tuple[set[str], set[str]]:
    """(modules of the package, other packages) that a module imports."""
    inner, outer = set(), set()
    for node in when_it_runs(modules()[name]):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            names = [alias.name for alias in node.names]
        for full in names:
            first, _, rest = full.partition(".")
            if first != "harness":
                outer.add(first)
            elif rest in modules():
                inner.add(rest)
            elif (parent := rest.rpartition(".")[0]) in modules():
                inner.add(parent)
    return inner, outer


def test_every_module_lies_in_a_wing() -> None:
    assert {name.partition(".")[0] for name in modules()} - {"__init__", "__main__", "api"} == set(WINGS)


def test_the_picture_in_architecture_md_is_the_codes() -> None:
    script = PACKAGE.parent / "docs" / "wings.py"
    subprocess.run([sys.executable, str(script), "--check"], check=True)


def test_a_wing_imports_earlier_wings_only() -> None:
    up = []
    for name in modules():
        wing = name.partition(".")[0]
        if wing in WINGS:
            later = WINGS[WINGS.index(wing) + 1 :]
            up += [f"{name} -> {other}" for other in imported(name)[0] if other.partition(".")[0] in later]
    assert up == []


def test_no_two_modules_import_each_other() -> None:
    reads = {name: imported(name)[0] for name in modules()}
    list(graphlib.TopologicalSorter(reads).static_order())  # raises CycleError where one reaches itself


def test_statistics_import_nothing_of_ours() -> None:
    outside = {other for name in modules() if name.startswith("stats.") for other in imported(name)[0]}
    assert all(other.startswith("stats.") for other in outside)


def test_a_heavy_package_has_its_homes() -> None:
    strays = []
    for name in modules():
        for package in imported(name)[1] & set(HOMES):
            if not any(name == home or name.startswith(f"{home}.") for home in HOMES[package]):
                strays.append(f"{name} imports {package}")
    assert strays == []


def test_a_command_starts_without_what_takes_seconds() -> None:
    for name in EVERY_COMMAND_PAYS:
        top = [node for node in modules()[name].body if isinstance(node, ast.Import | ast.ImportFrom)]
        words = ast.unparse(ast.Module(list(top), [])).split()
        assert not {"torch", "ray", "transformers"} & set(words), name


def test_no_private_name_of_another_module_is_used() -> None:
    private = [
        f"{name}: {node.module}.{alias.name}"
        for name, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("harness")
        for alias in node.names
        if alias.name.startswith("_")
    ]
    assert private == []
