"""How to get a table out of a tool whose files can't be read as they lie."""

from __future__ import annotations

from pathlib import Path

_BY_ENDING = {
    (".xlsx", ".xls", ".ods", ".numbers"): "save the sheet as CSV",
    (".pkl", ".pickle", ".joblib"): "in Python: pandas.read_pickle(FILE).to_csv('runs.csv')",
    (".feather", ".arrow", ".ipc"): "in Python: pandas.read_feather(FILE).to_csv('runs.csv')",
    (".h5", ".hdf5", ".hdf"): "in Python: pandas.read_hdf(FILE).to_csv('runs.csv')",
    (".dta", ".sav", ".sas7bdat"): "in Python: pandas.read_stata, read_spss or read_sas, then .to_csv('runs.csv')",
    (".rds", ".rdata"): "in R: write.csv(readRDS(FILE), 'runs.csv', row.names = FALSE)",
    (".mat", ".npz", ".npy"): "write a CSV of it, a row a run",
    (".pt", ".pth", ".ckpt", ".bin", ".safetensors"): "name the folder of the run's outputs, which has scores",
    (".duckdb",): "duckdb FILE -csv -c 'select * from …' > runs.csv",
    (".txt", ".log", ".out"): "write a CSV of it",
    (".yaml", ".yml", ".toml", ".ini"): "name the folder that holds the scores too",
    (".zip", ".tar", ".tgz", ".xz", ".bz2", ".zst", ".7z"): "unpack it, and name what is in it",
    (".ipynb",): "in the notebook: table.to_csv('runs.csv', index=False)",
    (".html", ".md", ".tex", ".pdf"): "write the table as CSV",
}  # fmt: skip
_BY_FOLDER = {
    ".aim": "Aim: in Python, aim.Repo(FOLDER).query_metrics(…) as a data frame, then .to_csv('runs.csv')",
    ".neptune": "Neptune: project.fetch_runs_table().to_pandas().to_csv('runs.csv')",
    ".guild": "Guild AI: guild runs export, or guild compare --csv runs.csv",
    ".dvc": "DVC: dvc exp show --csv > runs.csv",
    ".polyaxon": "Polyaxon: polyaxon ops ls --to-csv",
    "comet_offline": "Comet: comet upload the archives, then export the experiments as CSV from its page",
    "clearml": "ClearML: in its page, the experiments' table, Download as CSV",
}
_SACRED = {"run.json", "config.json", "metrics.json"}
_TABLES = {".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet"}


def hint_for(path: Path) -> str | None:
    """One sentence on how to get a table out of a file or folder; None where nothing is known of it."""
    if not path.is_dir():
        return next((text for endings, text in _BY_ENDING.items() if path.suffix.lower() in endings), None)
    try:
        names = sorted(entry.name for entry in path.iterdir())
    except OSError:
        return None
    for name, text in _BY_FOLDER.items():
        if name in names or path.name == name:
            return text
    inner = next(
        (path / name for name in names if (path / name).is_dir() and (path / name / "run.json").is_file()), None
    )
    if set(names) >= _SACRED or (inner is not None and (inner / "config.json").is_file()):
        return "Sacred: write a CSV, a row a run, from each run.json (status, result) and config.json (seed, settings)"
    databases = [name for name in names if name.endswith((".db", ".sqlite", ".sqlite3"))]
    if databases:
        return f"Name the store itself: {path / databases[0]}"
    tables = [name for name in names if Path(name).suffix.lower() in _TABLES]
    if tables:
        return f"Name the files themselves, as {path}/*{Path(tables[0]).suffix}"
    return None
