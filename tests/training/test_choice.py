"""Multiple choice: trained as transformers does, lane by lane, kept, asked, rerun and reported."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from choice_tasks import choice_task, rows, write
from cut_runs import same_lane
from language_models import completion_task, write_decoder
from shown_snippets import shown
from training_runs import begin, loss_of

from harness.analysis import dev_answers, verdicts
from harness.common.errors import HarnessError
from harness.config.recipe import ModelSpec, TaskSpec
from harness.config.recipe_rules import check_recipe
from harness.config.sweep_file import load
from harness.config.trials import Cell, Sweep, Trial, expand
from harness.data import tasks
from harness.execution import driver, gate
from harness.execution.driver import Options
from harness.execution.rerun import rerun
from harness.execution.verification import verify
from harness.models import predict, pretrained, saved
from harness.models.predict import PredictionOptions
from harness.records.store import Store
from harness.records.study import of_sweep
from harness.training import loop

Make = Callable[..., Trial]


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> TaskSpec:
    folder = tmp_path_factory.mktemp("data") / "colours"
    return choice_task(folder, rows(64, 1), rows(30, 2), rows(10, 3))


def theirs(model: ModelSpec, views: dict[str, torch.Tensor]) -> Any:
    """transformers' own network with a lane's weights, whose last layer has one output."""
    from transformers import AutoModelForMultipleChoice

    with torch.random.fork_rng(devices=[]):
        module = AutoModelForMultipleChoice.from_pretrained(
            model.folder, dtype=torch.float32, attn_implementation="eager"
        ).eval()
    own = module.state_dict()
    module.load_state_dict({name: value[: len(own[name])] for name, value in views.items()})
    return module


def batch_of(task: TaskSpec, model: ModelSpec, chosen: list[int]) -> dict[str, torch.Tensor]:
    """A batch as people make it for transformers: the tokenizer's own pairs of a text and each of its choices."""
    raw, tokenizer = tasks.load(task), pretrained.tokenizer(model)
    assert raw.train.choices is not None
    firsts = [raw.train.texts[row] for row in chosen for _ in range(3)]
    seconds = [choice for row in chosen for choice in raw.train.choices[row]]
    given = tokenizer(firsts, seconds, padding=True, return_tensors="pt")
    names = ("input_ids", "attention_mask")
    inputs = {name: given[name].view(len(chosen), 3, -1) for name in names}
    return inputs | {"labels": torch.from_numpy(raw.train.labels[chosen])}


@pytest.mark.parametrize("kind", ["bert", "roberta", "albert", "distilbert", "electra", "mpnet", "deberta-v2"])
def test_a_step_s_loss_is_transformers_own(
    trial: Make, colours: TaskSpec, build: Callable[..., Path], kind: str
) -> None:
    model = ModelSpec(name=f"tiny-{kind}", folder=str(build(kind)))
    run = begin([trial(1, task=colours, model=model, dropout=0.0)])
    with torch.no_grad():  # large enough that the choices' numbers differ
        run.lanes.weights.normal_(0.0, 1.0, generator=torch.Generator().manual_seed(1))
    batch = run.batches.draw(0)
    ours = loss_of(run, batch) / 8
    views = {name: view[0].detach() for name, view in run.lanes.arguments(run.lanes.weights).items()}
    with torch.no_grad():
        output = theirs(model, views)(**(given := batch_of(colours, model, batch.rows[0].tolist())))
    assert ours == pytest.approx(output.loss.item(), rel=1e-5)
    powers = np.exp(output.logits.numpy().astype(np.float64))
    shares = powers[np.arange(8), given["labels"].numpy()] / powers.sum(axis=1)
    assert ours == pytest.approx(float(-np.log(shares).mean()), rel=1e-5)
    assert float(np.ptp(output.logits.numpy())) > 0.05  # else any order of the choices would do


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"padding": "batch", "gradient_accumulation": 2},
        {"token_type_ids": True, "label_smoothing": 0.1},
        {"r_drop": 1.0, "neftune_alpha": 5.0},
        {"method": "lora", "lora_rank": 2},
        {"method": "prefix", "virtual_tokens": 3},
        {"method": "prompt", "virtual_tokens": 3},
        {"method": "adapter", "adapter_size": 4, "padding": "batch"},
        {"method": "head"},
        {"precision": "bf16"},
    ],
)
def test_a_lane_is_bit_equal_alone_and_in_a_pack(trial: Make, colours: TaskSpec, fields: dict[str, object]) -> None:
    """Beside lanes of other rates, decays and dropouts."""
    given = {"task": colours, "epochs": 1} | fields
    own = ((1e-3, 0.1, 0.0), (1e-2, 0.2, 0.1), (3e-2, "model", 0.01))
    pack = [
        trial(seed, lr=lr, dropout=dropout, weight_decay=decay, **given)
        for seed, (lr, dropout, decay) in enumerate(own, 1)
    ]
    (alone,) = loop.train(pack[1:2])
    together = loop.train(pack)
    assert same_lane(alone, together[1])
    assert not same_lane(together[0], together[1])
    assert alone.curves.logits.shape == (30, 3)
    assert alone.curves.test_logits.shape == (10, 3)
    assert alone.curves.recording is not None
    assert np.isfinite(alone.curves.recording.cls_rank).all()
    assert (alone.curves.recording.predicted.sum(axis=1) == 30).all()
    assert alone.measured.metric == "accuracy"
    assert alone.measured.label_entropy is not None
    assert alone.measured.label_entropy <= math.log(3)


@pytest.fixture(scope="module")
def trained(colours: TaskSpec, bert: ModelSpec, tmp_path_factory: pytest.TempPathFactory) -> tuple[Sweep, Store]:
    """Two rates, of which one trains, fully and by LoRA; the best run of each cell is kept."""
    folder = tmp_path_factory.mktemp("swept")
    path = folder / "mine.yaml"
    task, model = json.dumps(colours.model_dump(exclude_none=True)), json.dumps(bert.model_dump())
    path.write_text(
        f"task: {task}\nmodel: {model}\nlr: [3e-2, 1e-9]\nmethod: [full, lora]\nepochs: 5\nbatch_size: 8\n"
        "seeds: 1..2\ntoken_type_ids: true\n"
    )
    sweep = load(path)
    store = Store(folder / "results" / sweep.folder_name)
    assert driver.run(sweep, store, Options(in_process=True, keep="best"), lambda progress: None).finished == 8
    return sweep, store


def test_runs_are_judged_by_the_commonest_place_and_rerun(trained: tuple[Sweep, Store]) -> None:
    sweep, store = trained
    first = expand(sweep)[0]
    record = store.load(first.id)
    assert record is not None
    assert record.measured is not None
    labels = np.array([row["label"] for row in rows(30, 2)])
    assert record.measured.majority_correct == np.bincount(labels).max()
    assert (record.measured.metric, record.measured.outcome, record.measured.dev_examples) == ("accuracy", "ok", 30)
    runs = verdicts.runs(of_sweep(sweep, store))
    # An untrained network answers by luck, not always the same: it may count as above the commonest position.
    assert set(runs.loc[runs["lr"] == 1e-9, "verdict"]) <= {"failed", "near chance"}
    study = of_sweep(sweep, store)
    scores = dev_answers.scores(study, dev_answers.read_answers(study))
    assert [name for name in scores if name not in ("cell", "runs", "lr", "method")] == [
        "accuracy", "accuracy_sd", "ece", "ece_sd",  # a position is no class, of which there would be an F1
    ]  # fmt: skip
    curves = store.curves(first.id)
    assert curves is not None
    assert np.array_equal(curves.labels, labels)
    assert curves.logits.shape == (30, 3)
    assert rerun(sweep, store, first, 0.0).verdict == "identical"
    assert not verify.check(sweep, store).problems


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("method", ["full", "lora"])
def test_kept_models_load_by_transformers_with_the_record_s_logits(
    trained: tuple[Sweep, Store], colours: TaskSpec, bert: ModelSpec, tmp_path: Path, method: str
) -> None:
    _, store = trained
    card = next(card for card in saved.kept(store).values() if card.trial.recipe.method == method)
    folder, curves = saved.place(store, card.trial.id), store.curves(card.trial.id)
    assert curves is not None
    from peft import PeftModel
    from transformers import AutoModelForMultipleChoice, AutoTokenizer

    own = bert.folder if method == "lora" else folder
    with torch.random.fork_rng(devices=[]):
        module = AutoModelForMultipleChoice.from_pretrained(own, dtype=torch.float32, attn_implementation="eager")
    if method == "lora":
        module = PeftModel.from_pretrained(module, folder)
    tokenizer, dev = AutoTokenizer.from_pretrained(folder), rows(30, 2)
    firsts = [row["text"] for row in dev for _ in range(3)]
    seconds = [choice for row in dev for choice in row["choices"]]  # type: ignore[attr-defined]
    given = tokenizer(firsts, seconds, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = module.eval()(**{name: value.view(30, 3, -1) for name, value in given.items()}).logits.numpy()
    assert np.abs(logits - curves.logits).max() < 1e-4 * np.abs(logits).max()

    assert colours.files is not None
    out = tmp_path / "answers.tsv"
    file = Path(colours.files.validation or "")
    prediction = predict.run(PredictionOptions((folder,), file, out, label="label", probabilities=True))
    assert prediction.score == store.load(card.trial.id).measured.final_score  # type: ignore[union-attr]
    with out.open(newline="") as file_of_answers:
        answers = list(csv.DictReader(file_of_answers, delimiter="\t"))
    assert [int(row["label"]) for row in answers] == curves.logits.argmax(axis=1).tolist()
    shares = np.exp(curves.logits - curves.logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    assert [float(row["probability_2"]) for row in answers] == pytest.approx(shares[:, 2].tolist(), abs=1e-5)


def test_a_file_to_ask_on_needs_as_many_choices_and_no_labels(trained: tuple[Sweep, Store], tmp_path: Path) -> None:
    _, store = trained
    folder = saved.place(store, next(iter(saved.kept(store))))
    unlabelled = [{"text": row["text"], "choices": row["choices"]} for row in rows(4, 5)]
    file, out = write(tmp_path / "ask.jsonl", unlabelled), tmp_path / "out.jsonl"
    prediction = predict.run(PredictionOptions((folder,), file, out))
    assert (prediction.rows, prediction.score) == (4, None)
    assert len(out.read_text().splitlines()) == 4
    with pytest.raises(HarnessError, match=r"no column label for the label.* Name it with --label"):
        predict.run(PredictionOptions((folder,), file, out, label="label"))
    write(file, rows(2, 1, choices=2))
    with pytest.raises(HarnessError, match="line 1: 2 choices, and the model was trained on 3"):
        predict.run(PredictionOptions((folder,), file, out))
    by_text = [row | {"label": row["choices"][row["label"]]} for row in rows(4, 5)]  # type: ignore[index]
    write(file, by_text)
    assert predict.run(PredictionOptions((folder,), file, out, label="label")).score is not None


def test_the_page_s_code_chooses_as_predict_does(trained: tuple[Sweep, Store], tmp_path: Path) -> None:
    _, store = trained
    folder = saved.place(store, next(iter(saved.kept(store))))
    asked = rows(3, 8)
    predict.run(PredictionOptions((folder,), write(tmp_path / "ask.jsonl", asked), tmp_path / "out.jsonl"))
    for row, line in zip(asked, (tmp_path / "out.jsonl").read_text().splitlines(), strict=True):
        choices: Any = row["choices"]
        told = f"{row['text']!r}, {choices!r}"
        changes = {"old0": '"It rains.", ["The street is wet.", "The street is dry."]', "new0": told}
        assert shown("multiple-choice.md", folder, **changes) == choices[int(json.loads(line)["label"])]


def test_a_plan_refuses_choices_that_are_too_long_and_models_without_such_a_head(
    colours: TaskSpec, bert: ModelSpec, build: Callable[..., Path], trial: Make
) -> None:
    def planned(**fields: object) -> None:
        recipe = trial(1, task=colours, **fields).recipe
        cells, seeds = (Cell(axes=(), recipe=recipe),), (trial(1).seeds,)
        gate.check_planned(Sweep(name="x", profile="default", title="X", cells=cells, seeds=seeds), {})

    planned()
    with pytest.raises(HarnessError, match="a choice has 5 tokens, and max_length 7 leaves 3 for it"):
        planned(max_length=7)
    decoder = ModelSpec(name="tiny-gpt2", folder=str(build("gpt2")))
    with pytest.raises(HarnessError, match="AutoModelForMultipleChoice knows"):
        planned(model=decoder)


def test_a_plan_refuses_targets_of_another_family_and_encoders_that_are_to_complete(
    bert: ModelSpec, trial: Make, tmp_path: Path
) -> None:
    """Of a model at hand, and of one that is known by its name alone."""

    def planned(**fields: object) -> None:
        cells, seeds = (Cell(axes=(), recipe=trial(1, **fields).recipe),), (trial(1).seeds,)
        gate.check_planned(Sweep(name="x", profile="default", title="X", cells=cells, seeds=seeds), {})

    by_name = ModelSpec(name="bert-base-uncased")
    for model in (bert, by_name):
        planned(model=model, method="lora", lora_targets="query,value")
        with pytest.raises(HarnessError, match=r"lora_targets must .*got 'q_proj'.*Allowed: attention\.self\.query"):
            planned(model=model, method="lora", lora_targets="q_proj,v_proj")
    with pytest.raises(HarnessError, match="top_layers must be at most the model's 12 layers"):
        planned(model=by_name, method="top_layers", top_layers=13)
    completions = completion_task(tmp_path / "answers", [{"prompt": "a", "completion": "b"}] * 4, [])
    for method in ("full", "bitfit"):
        with pytest.raises(HarnessError, match="'bert' cannot be trained: it is an encoder"):
            planned(model=bert, task=completions, method=method)
    planned(model=write_decoder(tmp_path / "gpt2", "gpt2"), task=completions)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mixup": 0.2}, "mixup cannot be used with task.kind: choice: it would mix"),
        ({"oversample": True}, "oversample cannot be used with task.kind: choice"),
        ({"class_weights": True}, "class_weights cannot be used with task.kind: choice"),
        ({"augment": "swap"}, "augment cannot be used with task.kind: choice"),
        ({"task": {"metric": "f1"}}, "metric f1 cannot be used with task.kind: choice"),
        ({"task": {"kind": "texts", "choices": "choices"}}, "task.choices requires task.kind: choice"),
        ({"padding_side": "left"}, "padding_side: left requires task.kind: completion"),
    ],
)
def test_what_makes_no_sense_is_refused(trial: Make, colours: TaskSpec, fields: dict[str, Any], message: str) -> None:
    task = colours.model_copy(update=fields.pop("task", {}))
    with pytest.raises(HarnessError, match=message):
        check_recipe(trial(1, task=task, **fields).recipe)
