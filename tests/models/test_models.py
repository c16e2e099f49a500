"""Encoders of every family load, get a fresh head, and give under vmap what transformers gives."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import transformers
from torch.func import functional_call, vmap

from harness.common import hub, loading
from harness.common.errors import HarnessError
from harness.config.recipe import ModelSpec
from harness.models import pretrained
from harness.training.numerics import stream

KINDS = ("bert", "roberta", "albert", "electra", "distilbert", "deberta", "deberta-v2")


@pytest.mark.parametrize("kind", KINDS)
def test_every_family_gives_under_vmap_what_transformers_gives(kind: str, build: Callable[..., Path]) -> None:
    from transformers import AutoModelForSequenceClassification

    folder = build(kind)
    network = pretrained.network(ModelSpec(name=f"tiny-{kind}", folder=str(folder)), 3)
    lanes = [network.initialised(stream("init", seed)) for seed in (1, 2)]
    stacked = {name: torch.stack([lane[name] for lane in lanes]) for name in lanes[0]}
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 20, (2, 4, 9), generator=draw)  # [L, B, T]
    lengths = torch.tensor([[9, 3, 5, 1], [2, 9, 9, 4]])
    ids[torch.arange(9) >= lengths[..., None]] = 0
    network.module.eval()
    inputs = network.inputs(ids, lengths, None)
    ours = vmap(lambda view, given: functional_call(network.module, view, args=(), kwargs=given).logits)(
        stacked, inputs
    )
    theirs = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3).eval()
    for lane in range(2):
        theirs.load_state_dict(theirs.state_dict() | lanes[lane])
        mask = (torch.arange(9) < lengths[lane][:, None]).long()
        with torch.no_grad():
            expected = theirs(input_ids=ids[lane], attention_mask=mask).logits
        torch.testing.assert_close(ours[lane], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_head_alone_is_fresh(kind: str, build: Callable[..., Path]) -> None:
    network = pretrained.network(ModelSpec(name=f"tiny-{kind}", folder=str(build(kind))), 2)
    one, two = (network.initialised(stream("init", seed)) for seed in (1, 2))
    again = network.initialised(stream("init", 1))
    assert network.head
    for name, value in network.pretrained.items():
        assert torch.equal(one[name], again[name])
        if name not in network.head:
            assert torch.equal(one[name], value)
        elif name.endswith("weight") and value.dim() > 1:
            assert not torch.equal(one[name], two[name])
        elif name.endswith("bias"):
            assert not one[name].any()


def test_the_head_is_drawn_from_a_normal_of_two_hundredths(build: Callable[..., Path]) -> None:
    network = pretrained.network(ModelSpec(name="wide", folder=str(build("bert", hidden_size=256))), 40)
    assert network.head == ("classifier.weight", "classifier.bias")  # the pooler keeps its pretrained weights
    drawn = network.initialised(stream("init", 3))["classifier.weight"]  # 10,240 numbers
    assert drawn.mean().item() == pytest.approx(0.0, abs=4 * 0.02 / 101)
    assert drawn.std().item() == pytest.approx(0.02, rel=4 / 143)


def test_loading_overrides_the_checkpoints_type_mode_and_head(build: Callable[..., Path], tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    tuned = AutoModelForSequenceClassification.from_pretrained(build("bert"), num_labels=5).to(torch.bfloat16)
    tuned.save_pretrained(tmp_path)
    network = pretrained.network(ModelSpec(name="tuned", folder=str(tmp_path)), 2)
    assert {value.dtype for value in network.pretrained.values()} == {torch.float32}
    assert network.module.training
    assert network.head == ("classifier.weight", "classifier.bias")
    assert network.pretrained["classifier.weight"].shape == (2, 16)


def test_the_hash_follows_the_pretrained_weights_alone(build: Callable[..., Path], tmp_path: Path) -> None:
    from transformers import AutoModel

    folder = build("bert")
    first = pretrained.network(ModelSpec(name="a", folder=str(folder)), 2).sha256
    assert pretrained.network(ModelSpec(name="b", folder=str(folder)), 3).sha256 == first
    other = AutoModel.from_pretrained(folder)
    with torch.no_grad():
        other.embeddings.word_embeddings.weight[7, 3] += 1e-6
    other.save_pretrained(tmp_path)
    assert pretrained.network(ModelSpec(name="c", folder=str(tmp_path)), 2).sha256 != first


def test_the_pad_token_in_a_real_place_gets_a_gradient_in_every_lane(build: Callable[..., Path]) -> None:
    """Under vmap `nn.Embedding(padding_idx=…)` is honoured for lane 0 alone, silently (DESIGN.md)."""
    network = pretrained.network(ModelSpec(name="tiny-bert", folder=str(build("bert"))), 2)
    lane = network.initialised(stream("init", 1))
    stacked = {name: torch.stack([value] * 3).requires_grad_() for name, value in lane.items()}
    ids = torch.tensor([[[2, 0, 5, 0, 3]]] * 3)  # [L, 1, T], pad in real places
    inputs = network.inputs(ids, torch.full((3, 1), 5), None)
    network.module.eval()
    logits = vmap(lambda view, given: functional_call(network.module, view, args=(), kwargs=given).logits)(
        stacked, inputs
    )
    (gradient,) = torch.autograd.grad(logits[..., 0].sum(), [stacked["bert.embeddings.word_embeddings.weight"]])
    assert gradient[0, 0].abs().sum() > 0
    assert torch.equal(gradient[0], gradient[1])
    assert torch.equal(gradient[0], gradient[2])


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (ModelSpec(name="x", folder="/no/such/folder"), "has no config.json"),
        (ModelSpec(name="no-such-org/no-such-model"), "model.folder=DIR"),
    ],
)
def test_a_model_that_is_not_there_is_one_line(spec: ModelSpec, words: str) -> None:
    for load in (pretrained.tokenizer, lambda one: pretrained.network(one, 2)):
        with pytest.raises(HarnessError) as caught:
            load(spec)
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.fixture
def own_code(build: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of a kind that transformers knows, with code of its own, which leaves `ran` behind where it runs."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    folder = tmp_path / "own"
    shutil.copytree(build("bert"), folder)
    config = json.loads((folder / "config.json").read_text())
    mine = {"AutoModelForSequenceClassification": "mine.Mine"}
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": mine}))
    (folder / "mine.py").write_text(
        "from pathlib import Path\nfrom transformers import BertForSequenceClassification\n"
        f"Path({str(tmp_path / 'ran')!r}).touch()\nclass Mine(BertForSequenceClassification):\n    pass\n"
    )
    yield folder
    hub.trust_remote_code(False)


def test_a_models_own_code_runs_where_it_is_trusted_alone(own_code: Path, tmp_path: Path) -> None:
    spec = ModelSpec(name="own", folder=str(own_code))
    for check in (hub.check_model, pretrained.tokenizer, lambda one: pretrained.network(one, 2)):
        with pytest.raises(HarnessError, match="brings Python code of its own") as caught:
            check(spec)
        assert "\n" not in str(caught.value)
        assert "--trust-remote-code" in str(caught.value)
    # A name that is a folder of the working directory is read like one on the hub.
    with pytest.raises(HarnessError, match="brings Python code of its own"):
        loading.loaded("weights", ModelSpec(name=str(own_code)), pytest.fail)
    assert not (tmp_path / "ran").exists()
    hub.trust_remote_code(True)
    hub.check_model(spec)
    assert type(pretrained.network(spec, 2).module).__name__ == "Mine"
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:2000]), "cannot load the weights of 'cut'"),
        (lambda path: _write(path.with_name("config.json"), num_hidden_layers="two"), "expected int, got str"),
    ],
)
def test_weights_that_cannot_be_loaded_are_one_line(
    build: Callable[..., Path], damage: Callable[[Path], object], said: str
) -> None:
    folder = build("bert")
    damage(folder / "model.safetensors")
    with pytest.raises(HarnessError, match=said):
        pretrained.network(ModelSpec(name="cut", folder=str(folder)), 2)


def _write(config: Path, **fields: object) -> None:
    config.write_text(json.dumps(json.loads(config.read_text()) | fields))


def test_code_that_only_loading_finds_is_one_line_and_no_question(
    own_code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As transformers says it of an unknown kind; it is told not to ask, and a terminal is never read."""
    config = json.loads((own_code / "config.json").read_text())
    config |= {"model_type": "unheard-of", "auto_map": {"AutoConfig": "mine.Config"} | config["auto_map"]}
    (own_code / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(hub, "_brings_code", lambda folder: False)
    real = transformers.PretrainedConfig.get_config_dict
    first = "transformers.PretrainedConfig.get_config_dict"
    monkeypatch.setattr(first, lambda place, **words: real(place, **words) if words else ({}, {}))
    monkeypatch.setattr("builtins.input", pytest.fail)
    with pytest.raises(HarnessError, match="brings Python code of its own"):
        pretrained.network(ModelSpec(name="unheard", folder=str(own_code)), 2)
    assert not (tmp_path / "ran").exists()


def test_a_folder_without_weights_is_one_line(build: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((build("bert") / "config.json").read_text())
    with pytest.raises(HarnessError, match="cannot load the weights of 'empty'"):
        pretrained.network(ModelSpec(name="empty", folder=str(tmp_path)), 2)


def japanese(folder: Path) -> ModelSpec:
    """A folder with a tokenizer that finds words by MeCab, and no weights."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "売上", "高", "は", "増加"]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    config = {"tokenizer_class": "BertJapaneseTokenizer", "word_tokenizer_type": "mecab",
              "subword_tokenizer_type": "wordpiece", "mecab_kwargs": {"mecab_dic": "unidic_lite"}}  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "vocab_size": len(words)}))
    (folder / "model.safetensors").write_bytes(b"")
    return ModelSpec(name="ja", folder=str(folder))


def test_a_japanese_tokenizer_finds_words_by_mecab(tmp_path: Path) -> None:
    pytest.importorskip("fugashi")
    pytest.importorskip("unidic_lite")
    found = pretrained.tokenizer(japanese(tmp_path))(["売上高は増加", "高"])
    assert found["input_ids"] == [[2, 5, 6, 7, 8, 3], [2, 6, 3]]


def test_a_package_that_a_tokenizer_lacks_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fugashi", None)
    with pytest.raises(HarnessError, match=r"a package that it needs is missing .*fugashi.*pip install .*\[japanese\]"):
        pretrained.tokenizer(japanese(tmp_path))
