"""What all contenders train: a model's folder, its data as token ids, the recipe; and the arithmetic in a step."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.config.recipe import ModelSpec, Recipe, Seeds, TaskFiles, TaskSpec
from harness.config.trials import Trial

EMBEDDED = Path(__file__).parents[2] / "harness" / "data" / "embedded" / "model"
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SIZES = (1, 2, 4, 8, 16, 32)  # lanes of a pack
# RTE: 2,490 and 277 pairs of about 65 word pieces, cut at 128 as the paper does.
RTE, MEAN, SPREAD = (2_490, 277), 65, 0.45


@dataclass(frozen=True)
class Shape:
    """A BERT's sizes, and the longest text that it is given."""

    layers: int
    hidden: int
    heads: int
    inner: int
    words: int
    positions: int
    width: int = 128

    def lane_step(self, batch: int, width: int, labels: int = 2) -> int:
        """Floating-point operations in matrix products of a forward and backward pass, of one lane.

        A product of weights costs 2 a weight and row forward and twice that backward; the pooler and the head see one
        row a text. The two products of attention (queries with keys, weights with values) cost 2·width·hidden a token
        each forward, and twice that backward. Look-ups, softmax, normalisations and the optimizer are not counted.
        """
        tokens = batch * width
        layer = 6 * tokens * (4 * self.hidden**2 + 2 * self.hidden * self.inner)
        attention = 3 * 2 * (2 * tokens * width * self.hidden)
        head = 6 * batch * (self.hidden**2 + self.hidden * labels)
        return self.layers * (layer + attention) + head


SHAPES = {
    "tiny": Shape(2, 32, 2, 64, 60, 64, width=32),
    "mini": Shape(4, 256, 4, 1024, 8_000, 128, width=64),
    "base": Shape(12, 768, 12, 3072, 30_522, 512),
    "large": Shape(24, 1024, 16, 4096, 30_522, 512),
}


def shape_of(folder: Path, width: int) -> Shape:
    """The sizes that a model's folder states."""
    config = json.loads((folder / "config.json").read_text())
    keys = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size", "vocab_size",
            "max_position_embeddings")  # fmt: skip
    return Shape(*(int(config[key]) for key in keys), width=width)


def lane_step(recipe: Recipe, width: int) -> int:
    """Floating-point operations of a step of one lane, from the model's own folder."""
    folder = Path(recipe.model.folder) if recipe.model.folder else EMBEDDED
    return shape_of(folder, width).lane_step(recipe.batch_size, width)


def build_tokenizer(count: int, folder: Path) -> None:
    """Write a tokenizer of a token a word, of so many tokens."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = [*_SPECIAL, *(f"w{number}" for number in range(count - len(_SPECIAL)))]
    inner = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=inner, **names).save_pretrained(folder)


def build_model(shape: Shape, folder: Path) -> Path:
    """Write a BERT of this shape with random weights, and a tokenizer of a token a word."""
    import torch
    import transformers

    transformers.logging.disable_progress_bar()
    build_tokenizer(shape.words, folder)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=shape.words, hidden_size=shape.hidden, num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads, intermediate_size=shape.inner, max_position_embeddings=shape.positions,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(folder)
    return folder


def build_texts(folder: Path, sizes: tuple[int, int], width: int, words: int) -> TaskSpec:
    """Write two splits whose lengths in tokens are spread as RTE's, scaled to `width`, which the longest has.

    The label says which of two words begins the text, so that there is something to learn.
    """
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(0)
    plain = random.Random(0)
    middle = MEAN * width / 128 * np.exp(-(SPREAD**2) / 2)
    for name, rows in zip(("train", "validation"), sizes, strict=True):
        lengths = np.clip(draw.lognormal(np.log(middle), SPREAD, rows).round(), 6, width).astype(int)
        lengths[0] = width
        lines = ["text\tlabel"]
        for row, length in enumerate(lengths):
            body = (f"w{plain.randrange(2, words - len(_SPECIAL))}" for _ in range(length - 3))
            lines.append(f"w{row % 2} {' '.join(body)}\t{('no', 'yes')[row % 2]}")
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    files = TaskFiles(train=str(folder / "train.tsv"), validation=str(folder / "validation.tsv"))
    return TaskSpec(name="bench", files=files)


def build(home: Path, name: str, precision: str, sizes: tuple[int, int], epochs: int) -> Path:
    """A folder to train from: a model of a shape, built once under `home`, and texts for it; see `write`."""
    shape, model = SHAPES[name], home / name
    if not model.exists():
        build_model(shape, model)
    folder = home / f"{name}-{precision}-{sizes[0]}-{epochs}"
    task = build_texts(folder, sizes, shape.width, shape.words)
    recipe = Recipe(
        task=task,
        model=ModelSpec(name=f"bert-{name}-shape", folder=str(model)),
        lr=2e-5,
        epochs=epochs,
        max_length=shape.width,
        precision=precision,  # type: ignore[arg-type]
    )
    return write(folder, recipe)


def write(folder: Path, recipe: Recipe) -> Path:
    """Keep a recipe, and the same work for who knows nothing of the harness: `plain.json`, and arrays of token ids."""
    from harness.training.prepare import load_task

    folder.mkdir(parents=True, exist_ok=True)
    task = load_task(recipe.task, recipe.model, recipe.max_length)
    arrays = {}
    for name, split in (("train", task.train), ("dev", task.validation)):
        width = split.input_ids.shape[1]
        arrays[f"{name}_ids"] = split.input_ids
        arrays[f"{name}_mask"] = (np.arange(width) < split.lengths[:, None]).astype(np.int64)
        arrays[f"{name}_labels"] = split.labels
    np.savez(folder / "data.npz", **arrays)  # type: ignore[arg-type]
    (folder / "recipe.json").write_text(recipe.model_dump_json())
    plain = recipe.model_dump(exclude={"task", "model"}) | {
        "model": recipe.model.folder or str(EMBEDDED),
        "labels": task.num_labels,
        "width": task.train.input_ids.shape[1],
    }
    (folder / "plain.json").write_text(json.dumps(plain))
    return folder


def recipe(folder: Path) -> Recipe:
    """The recipe that was kept."""
    return Recipe.model_validate_json((folder / "recipe.json").read_bytes())


def trials(folder: Path, count: int) -> list[Trial]:
    """Trials of that recipe with seeds from 1."""
    return [
        Trial(recipe=recipe(folder), seeds=Seeds(seed=s, init_seed=s, order_seed=s, dropout_seed=s), cell=0)
        for s in range(1, count + 1)
    ]
