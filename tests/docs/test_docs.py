"""The documentation: pages are made, commands can be typed, sweeps load, Python runs, and the notebook is executed."""

import ast
import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

import harness
from harness.config.keys import all_keys
from harness.config.sweep_file import load
from harness.config.trials import expand

ROOT = Path(harness.__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def script(name: str) -> ModuleType:
    """A script of docs/, as a module."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def blocks(language: str) -> list[tuple[str, str]]:
    """(page, text) of all blocks of a language."""
    found = []
    for page in PAGES:
        for text in re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL):
            found.append((str(page.relative_to(ROOT)), text))
    return found


def named(pairs: list[tuple[str, str]]) -> list[str]:
    return [f"{page}-{number}" for number, (page, _) in enumerate(pairs)]


# ------------------------------------------------------------------------------------------------------------ the pages


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All pages as mkdocs reads them."""
    folder = tmp_path_factory.mktemp("docs") / "pages"
    script("build").build(folder)
    return folder


def test_every_page_of_the_navigation_is_made_and_every_page_is_in_it(built: Path) -> None:
    listed = re.findall(r"[\w/-]+\.md", (DOCS / "mkdocs.yml").read_text())
    assert sorted(listed) == sorted(str(page.relative_to(built)) for page in built.rglob("*.md"))
    assert len(listed) == len(set(listed))


def test_links_between_pages_and_pictures_lead_somewhere(built: Path) -> None:
    for page in built.rglob("*.md"):
        text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
        for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
            if not link.startswith("https://"):
                assert (page.parent / link).is_file(), f"{page.relative_to(built)}: {link}"


def test_the_reference_holds_every_key_command_column_and_function(built: Path) -> None:
    reference = {page.stem: page.read_text() for page in (built / "reference").iterdir()}
    assert all(f"`{key.name}`" in reference["sweep-file"] for key in all_keys())
    for name in ("sweep", "init", "lr-find", "import"):
        assert f"\n## {name}\n" in reference["commands"]
    assert "`--workers-per-gpu N`" in reference["commands"]
    assert all(f"\n## {name}\n" in reference["api"] for name in harness.__all__)
    assert "### Results.compare" in reference["api"]
    assert "`weights_sha256`" in reference["records"]
    assert "\n## pair_failures\n" in reference["tables"]
    for shipped in (ROOT / "sweeps").glob("*.yaml"):
        assert f"`{shipped.stem}`: " in reference["sweep-file"]


def test_a_docstrings_arguments_become_a_list() -> None:
    text = "Do it.\n\nArgs:\n    name: what\n        it is.\n    other: more.\n\nReturns:\n    A thing.\n"
    page = script("build").docstring(text)
    assert page.splitlines()[2] == "**Args:**"
    assert "- `name`: what" in page
    assert "- `other`: more." in page
    assert page.endswith("A thing.")


# ---------------------------------------------------------------------------------------------------- what is shown

SWEEPS = [(page, text) for page, text in blocks("yaml") if "seeds:" in text]


def test_there_are_snippets() -> None:
    assert len(SWEEPS) > 6
    assert {page for page, _ in blocks("python")} >= {"README.md", "docs/how-to/other-peoples-runs.md"}


@pytest.mark.parametrize(("page", "text"), SWEEPS, ids=named(SWEEPS))
def test_a_sweep_that_is_shown_loads(page: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / "shown.yaml"
    path.write_text(text)
    sweep = load(path)
    assert sweep.search is not None or len(expand(sweep)) == sum(sweep.due)


def test_the_template_of_a_new_sweep_loads_with_each_choice_that_it_shows(tmp_path: Path) -> None:
    template = (ROOT / "harness" / "cli" / "sweep_template.yaml").read_text()
    path = tmp_path / "mine.yaml"
    path.write_text(template)
    first = load(path)
    assert (len(first.cells), len(first.seeds)) == (4, 5)
    choices = re.findall(r"^# (\w+): (.*)$", template, re.MULTILINE)
    assert {"task", "model", "method", "precision", "baselines"} <= {key for key, _ in choices}
    for key, value in choices:
        kept = re.sub(rf"^{key}: .*$", "", template, flags=re.MULTILINE)
        path.write_text(f"{kept}\n{key}: {value}\n")
        assert load(path).cells, key


PYTHON = [(page, text) for page, text in blocks("python") if page != "README.md"]


@pytest.mark.parametrize(("page", "text"), PYTHON, ids=named(PYTHON))
def test_python_that_is_shown_runs(page: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").symlink_to(ROOT / "results")
    outputs = script("notebook").run_cell(text, {})
    assert "text/html" in outputs[-1]["data"]


def test_python_in_the_readme_uses_what_there_is() -> None:
    (_, text), *more = [pair for pair in blocks("python") if pair[0] == "README.md"]
    assert not more
    given = {"harness": set(harness.__all__), "results": set(dir(harness.Results)) | {"study"}}
    used = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Attribute)]
    checked = 0
    for node in used:
        if isinstance(node.value, ast.Name) and node.value.id in given:
            assert node.attr in given[node.value.id], node.attr
            checked += 1
    assert checked == 5


# ---------------------------------------------------------------------------------------------------- the notebook


def kinds(notebook: dict) -> list[list[str]]:
    """The media types that each cell of code shows."""
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return [[kind for one in cell["outputs"] for kind in one.get("data", {"stream": ""})] for cell in cells]


@pytest.mark.usefixtures("empty_pictures")  # of the page; the cells' own are drawn
def test_the_notebook_runs_and_shows_what_it_is_committed_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    committed = json.loads((DOCS / "tutorial" / "notebook.ipynb").read_text())
    notebook = script("notebook")
    done = notebook.run(committed)
    assert kinds(done) == kinds(committed)
    assert ["image/png", "text/plain"] in kinds(done)
    assert "identical" in json.dumps(done)
    assert (tmp_path / "page" / "index.html").is_file()
