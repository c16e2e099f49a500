"""Kept language models: loaded by transformers and peft, and asked for greedy answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from language_models import completion_task, rows, trial_of, write_decoder, write_rows
from shown_snippets import shown

from harness.common.errors import HarnessError
from harness.common.metrics import token_f1
from harness.data import completions
from harness.data.tokenized import Task
from harness.models import predict, predict_completions
from harness.models.keep_weights import Keeping
from harness.models.predict_completions import LanguageModel
from harness.training.loop import train
from harness.training.outcome import LaneResult
from harness.training.prepare import load_task

DEV = rows(10, 2)
METHODS = {
    "full": {},
    "lora": {"lora_rank": 2, "lora_alpha": 6.0},
    "prefix": {"virtual_tokens": 3},
    "prompt": {"virtual_tokens": 3},
}
Kept = tuple[Path, LaneResult, Task]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Kept]:
    made: dict[tuple[str, str], Kept] = {}
    task = completion_task(tmp_path_factory.mktemp("data") / "answers", rows(24, 1), DEV)

    def of(kind: str, method: str) -> Kept:
        if (kind, method) not in made:
            model = write_decoder(tmp_path_factory.mktemp(kind), kind)
            trial = trial_of(task, model, lr=3e-2, epochs=8, method=method, **METHODS[method])
            (result,) = train([trial])
            folder, tokens = tmp_path_factory.mktemp("kept"), load_task(task, model, 32)
            Keeping(folder, "all", ".marker").stage("s", "p", trial, result.measured, tokens, result.weights)
            made[kind, method] = folder / f".{trial.id}.staged", result, tokens
        return made[kind, method]

    return of


def prompts() -> list[str]:
    return [str(row["prompt"]) for row in DEV]


@pytest.mark.parametrize(("kind", "method"), [("gpt2", method) for method in METHODS] + [("llama", "lora")])
def test_greedy_answers_are_right_where_all_tokens_were_the_likeliest(
    kept: Callable[[str, str], Kept], kind: str, method: str
) -> None:
    """What an evaluation counts as an exact match, without generating, is what greedy decoding gives."""
    folder, result, _ = kept(kind, method)
    answers = LanguageModel(folder).answers(prompts(), False, 6)
    exact = result.curves.logits[:, 1] == result.curves.labels
    np.testing.assert_array_equal(
        [answer == row["completion"] for answer, row in zip(answers, DEV, strict=True)], exact
    )
    one_by_one = [LanguageModel(folder).answers([prompt], False, 6)[0] for prompt in prompts()[:3]]
    assert one_by_one == answers[:3]


@pytest.mark.parametrize(("kind", "method"), [("gpt2", "full"), ("gpt2", "lora"), ("llama", "lora")])
@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft calls what transformers renamed
def test_a_pipeline_and_peft_load_what_was_kept(kept: Callable[[str, str], Kept], kind: str, method: str) -> None:
    """Generating as transformers does, with its cache and padding on the left, gives the same answers."""
    import peft
    import transformers

    folder, result, _ = kept(kind, method)
    answers = LanguageModel(folder).answers(prompts(), False, 6)
    if method == "lora":
        assert json.loads((folder / "adapter_config.json").read_text())["task_type"] == "CAUSAL_LM"
        model = peft.AutoPeftModelForCausalLM.from_pretrained(folder)
    else:
        model = transformers.AutoModelForCausalLM.from_pretrained(folder)
        flat = torch.nn.utils.parameters_to_vector(model.parameters()).detach().numpy()
        np.testing.assert_array_equal(flat, result.weights)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert tokenizer.padding_side == "left"
    asked = tokenizer(prompts()[0].strip(), return_tensors="pt")
    with torch.no_grad():
        logits = model.eval()(**asked).logits[0, -1]
    served = LanguageModel(folder)
    ids = torch.tensor([completions.prompt_ids(prompts()[:1], False, served.tokenizer)[0]])
    torch.testing.assert_close(served.next_logits(ids, torch.tensor([ids.shape[1]]))[0], logits, rtol=1e-4, atol=1e-4)
    pipe = transformers.pipeline("text-generation", model=model.eval(), tokenizer=tokenizer)
    given = transformers.GenerationConfig(max_new_tokens=6, do_sample=False, pad_token_id=0, eos_token_id=3)
    told = [pipe(prompt.strip(), generation_config=given, return_full_text=False) for prompt in prompts()]
    assert [" ".join(text[0]["generated_text"].split()) for text in told] == answers


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_page_s_code_answers_as_predict_does(kept: Callable[[str, str], Kept]) -> None:
    folder, _, _ = kept("gpt2", "lora")
    prompt = prompts()[0].strip()
    text = shown("language-models.md", folder, old0='"What is a seed?"', new0=repr(prompt))
    assert " ".join(text.split()) == LanguageModel(folder).answers([prompt], False, 6)[0]


def test_a_file_is_answered_and_scored(kept: Callable[[str, str], Kept], tmp_path: Path) -> None:
    folder, _, _ = kept("gpt2", "full")
    file = write_rows(tmp_path / "ask.jsonl", DEV)
    options = predict.PredictionOptions((folder,), file, tmp_path / "out.jsonl", label="completion", max_new_tokens=6)
    prediction = predict_completions.run(options)
    answers = [json.loads(line)["answer"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert prediction.score == np.mean([own == row["completion"] for own, row in zip(answers, DEV, strict=True)])
    assert prediction.token_f1 == pytest.approx(
        np.mean([token_f1(a, str(r["completion"])) for a, r in zip(answers, DEV, strict=True)])
    )
    bare = write_rows(tmp_path / "bare.jsonl", [{"prompt": row["prompt"]} for row in DEV])
    unscored = predict_completions.run(predict.PredictionOptions((folder,), bare, tmp_path / "b.csv", max_new_tokens=6))
    assert unscored.score is None
    assert (tmp_path / "b.csv").read_text().splitlines() == ["answer", *answers]
    texts = write_rows(tmp_path / "texts.jsonl", [{"text": row["prompt"]} for row in DEV])
    predict_completions.run(predict.PredictionOptions((folder,), texts, tmp_path / "t.csv", max_new_tokens=6))
    assert (tmp_path / "t.csv").read_text() == (tmp_path / "b.csv").read_text()  # a text alone is gone on from
    with pytest.raises(HarnessError, match="several language models cannot be averaged"):
        predict_completions.run(predict.PredictionOptions((folder, folder), file))


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_room_for_an_answer_takes_nothing_from_a_prompt_that_fits(kept: Callable[[str, str], Kept], kind: str) -> None:
    """Asked for more tokens than the model can read, it answers the whole prompt, and says where it could not."""
    folder, _, _ = kept(kind, "lora" if kind == "llama" else "full")
    model = LanguageModel(folder)
    assert model.positions is not None
    asked = [prompt for prompt in prompts() if len(completions.prompt_ids([prompt], False, model.tokenizer)[0]) < 20]
    assert asked
    short, long = model.answers(asked, False, 6), model.answers(asked, False, model.positions)
    assert any(short)
    assert all(whole.startswith(begun) for whole, begun in zip(long, short, strict=True))
    assert model.shortened == 0
    model.answers([asked[0] * model.positions, asked[0]], False, 4)
    assert model.shortened == 1


def test_choices_are_answered_by_the_likeliest_as_they_were_scored(tmp_path: Path) -> None:
    dev = rows(10, 2, choices=True)
    task = completion_task(tmp_path / "colours", rows(24, 1, choices=True), dev, metric="accuracy")
    trial = trial_of(task, write_decoder(tmp_path / "gpt2", "gpt2"), lr=3e-3, epochs=2, method="lora", lora_rank=2)
    (result,) = train([trial])
    tokens = load_task(task, trial.recipe.model, 32)
    Keeping(tmp_path / "kept", "all", ".marker").stage("s", "p", trial, result.measured, tokens, result.weights)
    file, out = write_rows(tmp_path / "ask.jsonl", dev), tmp_path / "out.jsonl"
    folder = tmp_path / "kept" / f".{trial.id}.staged"
    prediction = predict_completions.run(predict.PredictionOptions((folder,), file, out, label="completion"))
    answers = [json.loads(line)["answer"] for line in out.read_text().splitlines()]
    assert answers == [("red", "blue")[place] for place in result.curves.logits.argmax(1)]
    assert (prediction.metric, prediction.token_f1) == ("accuracy", None)
    assert prediction.score == result.measured.final_score


@pytest.mark.parametrize(
    ("answer", "expected", "f1"),
    [
        ("a red car", "the red, car!", 1.0),
        ("red", "blue", 0.0),
        ("red red", "red", 2 / 3),
        ("", "", 1.0),
        ("", "red", 0.0),
    ],
)
def test_token_f1_is_that_of_squad(answer: str, expected: str, f1: float) -> None:
    """By the counts of Rajpurkar et al.'s evaluation: 2PR / (P + R) over words without articles and punctuation."""
    assert token_f1(answer, expected) == pytest.approx(f1)
