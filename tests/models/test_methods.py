"""Methods train what they say, put in what peft or the paper says, and keep to the laws of the engine."""

import copy
import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from cut_runs import same_lane
from torch import Tensor
from torch.func import functional_call, vmap
from training_runs import begin

from harness.common.errors import HarnessError
from harness.config.recipe import Method, ModelSpec, Recipe
from harness.config.sweep_file import load
from harness.config.trials import Cell, Sweep, Trial
from harness.execution import driver, lanes_memory, model_shape
from harness.execution.driver import Options
from harness.models import methods, pretrained
from harness.records.record import Environment
from harness.records.store import Store
from harness.training import loop, replay, replayer
from harness.training.checkpoints import Checkpoints
from harness.training.loop import update
from harness.training.numerics import stream
from harness.training.run import TrainingRun

Make = Callable[..., Trial]
Build = Callable[..., Path]
METHODS: list[dict[str, object]] = [
    {"method": "head"}, {"method": "top_layers", "top_layers": 1}, {"method": "lora", "lora_rank": 4},
    {"method": "lora", "lora_rank": 1, "lora_targets": "dense"}, {"method": "prefix", "virtual_tokens": 5},
    {"method": "prompt", "virtual_tokens": 5}, {"method": "ia3"}, {"method": "adapter", "adapter_size": 4},
    {"method": "bitfit"},
]  # fmt: skip
DECODERS: dict[str, dict[str, object]] = {
    "gpt2": {},
    "llama": {"num_key_value_heads": 1},
    "qwen2": {"num_key_value_heads": 2},
}
HEAD = 16 * 2 + 2  # of the tiny BERT
# What get_peft_model asks transformers; the harness puts peft's modules in without it.
peft_warns = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def words(fields: dict[str, object]) -> str:
    return "-".join(map(str, fields.values()))


@pytest.fixture(scope="session")
def model(build: Build) -> Callable[[str], ModelSpec]:
    """A small model of a kind, built once."""
    made: dict[str, ModelSpec] = {}

    def find(kind: str) -> ModelSpec:
        if kind not in made:
            made[kind] = ModelSpec(name=f"small-{kind}", folder=str(build(kind, **DECODERS.get(kind, {}))))
        return made[kind]

    return find


# --------------------------------------------------------------------------------------------------- what is trained


@pytest.mark.parametrize(
    ("method", "trained"),
    [
        (Method("lora"), 294_912),
        (Method("lora", lora_rank=16, lora_targets="query, key, value, attention.output.dense"), 1_179_648),
        (Method("ia3"), 12 * (768 + 768 + 3072)),
        (Method("adapter"), 12 * 2 * (2 * 64 * 768 + 64 + 768) + 25 * 2 * 768),
        (Method("prefix"), 12 * 2 * 20 * 768),
        (Method("prompt"), 20 * 768),
        (Method("top_layers", top_layers=12), 12 * 7_087_872 + 768 * 768 + 768),
        (Method("bitfit"), 768 + 12 * (4 * 768 + 3072 + 768 + 2 * 768) + 768),
        (Method("head"), 0),
    ],
)
def test_the_trained_parameters_of_bert_base(method: Method, trained: int) -> None:
    """Without the head and without memory; LoRA's two counts are those of its usual settings."""
    with torch.device("meta"):
        module = transformers.BertForSequenceClassification(transformers.BertConfig())
        names, _ = methods.adapt(module, method, ())
    parameters = dict(module.named_parameters())
    assert sum(parameters[name].numel() for name in names if not name.startswith("classifier.")) == trained


LAYER = 4 * (16 * 16 + 16) + (16 * 32 + 32) + (32 * 16 + 16) + 2 * 2 * 16


@pytest.mark.parametrize(
    ("fields", "trained", "put_in"),
    [
        ({}, 20 * 16 + 32 * 16 + 2 * 16 + 2 * 16 + 2 * LAYER + 272, 0),
        (METHODS[0], 0, 0),
        (METHODS[1], LAYER + 272, 0),
        (METHODS[2], 2 * 2 * 4 * 32, 2 * 2 * 4 * 32),
        (METHODS[3], 2 * (32 + 48 + 48) + 32, 2 * (32 + 48 + 48) + 32),
        (METHODS[4], 2 * 2 * 5 * 16, 2 * 2 * 5 * 16),
        (METHODS[5], 5 * 16, 5 * 16),
        (METHODS[6], 2 * (16 + 16 + 32), 2 * (16 + 16 + 32)),
        (METHODS[7], 4 * (2 * 4 * 16 + 4 + 16) + 5 * 32, 4 * (2 * 4 * 16 + 4 + 16)),
        (METHODS[8], 16 + 2 * (4 * 16 + 32 + 16 + 2 * 16) + 16, 0),
    ],
)
def test_what_is_trained_is_stacked_and_changes_and_the_rest_stays(
    trial: Make, fields: dict[str, object], trained: int, put_in: int
) -> None:
    """Counted by hand: two layers of 16 by 32, 20 words, 32 positions."""
    trials = [trial(seed, lr=1e-2, dropout=0.0, **fields) for seed in (1, 2)]
    network = pretrained.network(trials[0].recipe.model, 2, trials[0].recipe.peft_config)
    full = pretrained.network(trials[0].recipe.model, 2)
    before = {name: value.clone() for name, value in network.module.named_parameters()}
    run = begin(trials)
    assert run.lanes.weights.shape == (2, trained + HEAD)
    start = {name: value.detach().clone() for name, value in run.lanes.views.items()}
    for step in range(3):
        update(run, step)
    unread = ("position_embeddings.weight", "token_type_embeddings.weight")  # in part
    moved = {name for name, value in run.lanes.views.items() if not torch.equal(value, start[name])}
    assert moved >= {name for name in run.lanes.views if not name.endswith(unread)}
    assert all(torch.equal(value, before[name]) for name, value in network.module.named_parameters())
    everything = sum(value.numel() for value in full.module.parameters())
    measured = loop.train(trials[:1])[0].measured
    assert (measured.trained_parameters, measured.parameters) == (trained + HEAD, everything + put_in)


@pytest.mark.parametrize("fields", METHODS[:1] + METHODS[2:3], ids=words)
def test_the_frozen_values_are_there_once(trial: Make, fields: dict[str, object]) -> None:
    """Of all methods of a model and of all lanes: no lane's view of them is a copy."""
    recipe = trial(1, **fields).recipe
    network, full = pretrained.network(recipe.model, 2, recipe.peft_config), pretrained.network(recipe.model, 2)
    where = {value.data_ptr() for value in full.module.parameters()}
    frozen = [value for name, value in network.module.named_parameters() if name not in network.pretrained]
    assert frozen
    assert {value.data_ptr() for value in frozen} <= where
    run = begin([trial(seed, **fields) for seed in range(1, 9)])
    shared = run.loss_and_gradient.forward.shared(8)
    assert len(shared) == 2 * 6 + 1  # the layers' products and the pooler's
    for name, value in shared.items():
        assert value.shape[0] == 8
        assert value.stride(0) == 0
        assert value.data_ptr() == network.frozen[name].data_ptr()


# ------------------------------------------------------------------------------------------------- against peft


def plain(spec: ModelSpec, network: pretrained.Network, values: dict[str, Tensor]) -> transformers.PreTrainedModel:
    """transformers' own classifier with the same weights, a lane's head among them."""
    module = transformers.AutoModelForSequenceClassification.from_pretrained(
        spec.folder, num_labels=3, attn_implementation="eager"
    )
    module.config.pad_token_id = 0
    module.load_state_dict(module.state_dict() | {name: values[name] for name in network.head})
    return module.eval()


def lane(network: pretrained.Network, seed: int) -> dict[str, Tensor]:
    """A lane's parameters, all of them moved away from their first values, and a head that tells apart."""
    draw = torch.Generator().manual_seed(seed)
    values = network.initialised(stream("init", seed))
    return {
        name: value + torch.empty(value.shape).normal_(0, 1.0 if name in network.head else 0.2, generator=draw)
        for name, value in values.items()
    }


def batch(full: bool = False) -> tuple[Tensor, Tensor]:
    """Padded on the right: input_ids [2, 4, 9] and lengths [2, 4]."""
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 20, (2, 4, 9), generator=draw)
    lengths = torch.full((2, 4), 9) if full else torch.tensor([[9, 3, 5, 1], [2, 9, 9, 4]])
    ids[torch.arange(9) >= lengths[..., None]] = 0
    return ids, lengths


def ours(network: pretrained.Network, lanes: list[dict[str, Tensor]], given: dict[str, Tensor]) -> Tensor:
    """Logits of the lanes under vmap, [L, B, C]."""
    network.module.eval()
    stacked = {name: torch.stack([one[name] for one in lanes]) for name in lanes[0]}
    call = lambda view, x: functional_call(network.module, methods.given(view), args=(), kwargs=x).logits  # noqa: E731
    logits: Tensor = vmap(call)(stacked, given)
    return logits


@peft_warns
@pytest.mark.parametrize("kind", ["bert", "distilbert", "gpt2", "llama"])
@pytest.mark.parametrize(("rank", "targets"), [(4, None), (1, None), (3, "{ends}")])
def test_lora_is_pefts(model: Callable[[str], ModelSpec], kind: str, rank: int, targets: str | None) -> None:
    """Logits and gradients, with another alpha in each lane."""
    import peft  # in seconds, which other processes of the tests need not spend

    ends = {
        "bert": "query,output.dense",
        "distilbert": "q_lin, lin1",
        "gpt2": "c_attn,c_fc",
        "llama": "q_proj, up_proj",
    }
    usual = {"bert": "query,value", "distilbert": "q_lin,v_lin", "gpt2": "c_attn", "llama": "q_proj,v_proj"}
    chosen = (usual if targets is None else ends)[kind]
    spec, alphas = model(kind), (16.0, 3.0)
    network = pretrained.network(spec, 3, Method("lora", lora_rank=rank, lora_targets=targets and chosen))
    lanes = [lane(network, seed) for seed in (1, 2)]
    ids, lengths = batch()
    views = [
        {name: value.clone().requires_grad_() for name, value in one.items()}
        | {methods.LORA_SCALE: torch.tensor(alpha / rank)}
        for one, alpha in zip(lanes, alphas, strict=True)
    ]
    logits = ours(network, views, network.inputs(ids, lengths, None))
    logits.square().sum().backward()
    for number, alpha in enumerate(alphas):
        config = peft.LoraConfig(
            task_type="SEQ_CLS",
            r=rank,
            lora_alpha=alpha,
            target_modules=[end.strip() for end in chosen.split(",")],
            fan_in_fan_out=kind == "gpt2",
        )
        theirs = peft.get_peft_model(plain(spec, network, lanes[number]), config).eval()
        for name, value in theirs.named_parameters():
            if "lora_" in name:
                value.data.copy_(lanes[number][name.removeprefix("base_model.model.")])
        mask = (torch.arange(9) < lengths[number][:, None]).long()
        expected = theirs(input_ids=ids[number], attention_mask=mask).logits
        torch.testing.assert_close(logits[number], expected, rtol=1e-5, atol=1e-5)
        expected.square().sum().backward()
        for name, value in theirs.named_parameters():
            if "lora_" in name:
                found = views[number][name.removeprefix("base_model.model.")].grad
                torch.testing.assert_close(found, value.grad, rtol=1e-3, atol=1e-4)  # processors round apart


@peft_warns
@pytest.mark.parametrize(
    ("kind", "scaled", "forward"),
    [
        ("bert", r".*(key|value|\d\.output\.dense)", r".*\d\.output\.dense"),
        ("gpt2", r".*(c_attn|mlp\.c_proj)", r".*mlp\.c_proj"),
        ("llama", r".*(k_proj|v_proj|down_proj)", ".*down_proj"),
    ],
)
def test_ia3_is_pefts(model: Callable[[str], ModelSpec], kind: str, scaled: str, forward: str) -> None:
    import peft  # in seconds, which other processes of the tests need not spend

    spec = model(kind)
    network = pretrained.network(spec, 3, Method("ia3"))
    lanes = [lane(network, seed) for seed in (1, 2)]
    ids, lengths = batch()
    logits = ours(network, lanes, network.inputs(ids, lengths, None))
    for number, one in enumerate(lanes):
        config = peft.IA3Config(
            task_type="SEQ_CLS", target_modules=scaled, feedforward_modules=forward, fan_in_fan_out=kind == "gpt2"
        )
        theirs = peft.get_peft_model(plain(spec, network, one), config).eval()
        put = [name for name, _ in theirs.named_parameters() if ".ia3_l." in name]
        assert {name.removeprefix("base_model.model.") for name in put} == set(network.drawn)
        for name in put:
            theirs.get_parameter(name).data.copy_(one[name.removeprefix("base_model.model.")])
        mask = (torch.arange(9) < lengths[number][:, None]).long()
        expected = theirs(input_ids=ids[number], attention_mask=mask).logits
        torch.testing.assert_close(logits[number], expected, rtol=1e-5, atol=1e-5)


def cached(module: Any, ids: Tensor, mask: Tensor, keys_and_values: Tensor) -> Tensor:
    """Logits [B, C] of transformers' own classifier, given keys and values [layers, 2, H, V, D] of before the text."""
    cache = transformers.DynamicCache()
    for number, (keys, values) in enumerate(keys_and_values):
        cache.update(keys.expand(len(ids), *keys.shape), values.expand(len(ids), *values.shape), number)
    encoder = module.base_model
    named = "cache" if "cache" in inspect.signature(encoder.forward).parameters else "past_key_values"  # from 5.24 on
    before = torch.ones(len(ids), keys_and_values.shape[3], dtype=mask.dtype)
    said = {"input_ids": ids, "attention_mask": torch.cat([before, mask], dim=1), named: cache}
    if hasattr(module, "score"):  # of a decoder, which finds the last real token
        return module(**said).logits
    return module.classifier(encoder(**said).pooler_output)


def of_peft(theirs: Any, ids: Tensor, mask: Tensor) -> Tensor | None:
    """peft's logits; None where it refuses, as 0.21 does any transformers that calls the cache by another name."""
    try:
        return theirs(input_ids=ids, attention_mask=mask).logits
    except ValueError as error:
        if "does not support past key values" not in str(error):
            raise
        return None


@peft_warns
@pytest.mark.parametrize(
    ("kind", "table"),
    [("bert", "bert.embeddings.position_embeddings.weight"), ("gpt2", "transformer.wpe.weight")],
)
def test_a_prefix_is_transformers_cache_and_pefts(model: Callable[[str], ModelSpec], kind: str, table: str) -> None:
    """Both count the text's positions behind the prefix, so their table of positions is moved by as much."""
    import peft  # in seconds, which other processes of the tests need not spend

    spec, tokens = model(kind), 5
    network = pretrained.network(spec, 3, Method("prefix", virtual_tokens=tokens))
    lanes = [lane(network, seed) for seed in (1, 2)]
    ids, lengths = batch()
    logits = ours(network, lanes, network.inputs(ids, lengths, None))
    prefixes = [name for name in network.pretrained if name.endswith(".prefix")]
    for number, one in enumerate(lanes):
        module = plain(spec, network, one).eval()
        with torch.no_grad():
            positions = module.get_parameter(table)
            positions[tokens:] = positions[:-tokens].clone()
        stacked = torch.stack([one[name] for name in prefixes])  # [layers, 2, H, V, D]
        mask = (torch.arange(9) < lengths[number][:, None]).long()
        by_cache = cached(module, ids[number], mask, stacked)
        torch.testing.assert_close(logits[number], by_cache, rtol=1e-5, atol=1e-5)
        config = peft.PrefixTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=tokens)
        theirs = peft.get_peft_model(module, config).eval()
        encoder = theirs.prompt_encoder["default"].embedding.weight  # [V, layers · 2 · H · D]
        encoder.data.copy_(stacked.permute(3, 0, 1, 2, 4).reshape(tokens, -1))
        by_peft = of_peft(theirs, ids[number], mask)
        if by_peft is not None:
            torch.testing.assert_close(logits[number], by_peft, rtol=1e-5, atol=1e-5)


@peft_warns
@pytest.mark.parametrize("kind", ["bert", "roberta", "llama"])
def test_a_prompt_is_pefts(model: Callable[[str], ModelSpec], kind: str) -> None:
    """Where a model asks for the last real token, peft reads the last of all, so no text is padded there."""
    import peft  # in seconds, which other processes of the tests need not spend

    spec, tokens = model(kind), 5
    network = pretrained.network(spec, 3, Method("prompt", virtual_tokens=tokens))
    assert network.positions == pretrained.network(spec, 3).positions - tokens  # type: ignore[operator]
    lanes = [lane(network, seed) for seed in (1, 2)]
    ids, lengths = batch(full=kind == "llama")
    logits = ours(network, lanes, network.inputs(ids, lengths, None))
    (name,) = network.drawn
    for number, one in enumerate(lanes):
        config = peft.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=tokens)
        module = plain(spec, network, one)
        if kind == "llama":
            module.config.pad_token_id = None
        theirs = peft.get_peft_model(module, config).eval()
        theirs.prompt_encoder["default"].embedding.weight.data.copy_(one[name])
        mask = (torch.arange(9) < lengths[number][:, None]).long()
        with torch.no_grad():  # without a padding token, one text at a time
            each = [theirs(input_ids=ids[number][[row]], attention_mask=mask[[row]]).logits for row in range(4)]
        expected = torch.cat(each)
        torch.testing.assert_close(logits[number], expected, rtol=1e-5, atol=1e-5)


def test_an_adapter_is_its_formula(model: Callable[[str], ModelSpec]) -> None:
    """Hooks on transformers' own BERT put h + up(gelu(down(h))) where Houlsby et al. (2019) do."""
    spec = model("bert")
    network = pretrained.network(spec, 3, Method("adapter", adapter_size=4))
    values = lane(network, 1)
    ids, lengths = batch()
    inputs = {name: value[0] for name, value in network.inputs(ids, lengths, None).items()}
    logits = ours(network, [values], {name: value[None] for name, value in inputs.items()})[0]
    theirs = plain(spec, network, values)
    theirs.load_state_dict(theirs.state_dict() | {name: values[name] for name in values if name not in network.drawn})

    def behind(place: str) -> Callable[..., Tensor]:
        def hook(part: object, given: object, h: Tensor) -> Tensor:
            own = {name.removeprefix(f"{place}."): value for name, value in values.items()}
            inner = torch.nn.functional.gelu(h @ own["adapter_down.weight"].T + own["adapter_down.bias"])
            return h + inner @ own["adapter_up.weight"].T + own["adapter_up.bias"]

        return hook

    for layer in (0, 1):
        for end in ("attention.output", "output"):
            place = f"bert.encoder.layer.{layer}.{end}.dropout"
            theirs.get_submodule(place).register_forward_hook(behind(place))
    with torch.no_grad():
        expected = theirs(**inputs).logits
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)


# --------------------------------------------------------------------------------------------------- first values


@pytest.mark.parametrize("fields", METHODS, ids=words)
def test_a_seed_gives_one_head_under_any_method_and_each_its_own_parts(trial: Make, fields: dict[str, object]) -> None:
    recipe = trial(1, **fields).recipe
    full, network = pretrained.network(recipe.model, 2), pretrained.network(recipe.model, 2, recipe.peft_config)
    one, again, other = (network.initialised(stream("init", seed)) for seed in (1, 1, 2))
    assert list(one) == list(network.pretrained)
    for name, value in one.items():
        assert torch.equal(value, again[name])
        if name in network.head:
            assert torch.equal(value, full.initialised(stream("init", 1))[name])
        elif name not in network.drawn:
            assert torch.equal(value, full.pretrained[name])
        elif not (name.endswith("bias") or "lora_B" in name or "ia3" in name):
            assert not torch.equal(value, other[name])


def test_new_parts_are_drawn_as_their_sources_say(build: Build) -> None:
    spec = ModelSpec(name="wide", folder=str(build("bert", hidden_size=256)))

    def drawn(method: Method, end: str) -> Tensor:
        values = pretrained.network(spec, 2, method).initialised(stream("init", 1))
        return torch.cat([value.flatten() for name, value in values.items() if name.endswith(end)])

    first = drawn(Method("lora"), "lora_A.default.weight")  # 8,192 numbers, uniform on ± 1 / √256
    assert first.abs().max().item() == pytest.approx(1 / 16, rel=0.01)
    assert first.std().item() == pytest.approx(1 / 16 / math.sqrt(3), rel=0.05)
    assert not drawn(Method("lora"), "lora_B.default.weight").any()
    assert drawn(Method("ia3"), "ia3_l.default").eq(1).all()
    down = drawn(Method("adapter"), "adapter_down.weight")
    assert down.abs().max().item() <= 0.02
    assert down.std().item() == pytest.approx(0.01 * 0.8796, rel=0.02)  # of a normal cut at two deviations
    assert not drawn(Method("adapter"), "adapter_down.bias").any()
    for method, end in (("prefix", ".prefix"), ("prompt", ".prompt")):
        assert drawn(Method(method), end).std().item() == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize("kind", ["bert", "albert", "distilbert", "deberta-v2", "gpt2", "llama"])
@pytest.mark.parametrize("method", ["lora", "ia3", "adapter"])
def test_training_begins_at_the_pretrained_network_or_next_to_it(
    model: Callable[[str], ModelSpec], kind: str, method: str
) -> None:
    full, network = (pretrained.network(model(kind), 3, one) for one in (Method(), Method(method)))
    ids, lengths = batch()
    found, expected = (
        ours(one, [one.initialised(stream("init", 1))] * 2, one.inputs(ids, lengths, None)) for one in (network, full)
    )
    assert set(network.drawn)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-3 if method == "adapter" else 1e-7)


# -------------------------------------------------------------------------------------------- the laws of the engine


@pytest.mark.parametrize(
    ("fields", "padding"),
    [
        *((fields, "dataset") for fields in METHODS),
        *((fields, "batch") for fields in METHODS[2:6]),
        *(({**fields, "precision": "bf16"}, "dataset") for fields in METHODS),
    ],
)
def test_a_lane_is_bit_equal_alone_in_any_place_and_recorded(
    trial: Make, monkeypatch: pytest.MonkeyPatch, fields: dict[str, object], padding: str
) -> None:
    changes: list[dict[str, object]] = [{"dropout": 0.3}, {"lr": 1e-2}, {"lr": 1e30}, {"weight_decay": 0.5}]
    trials = [
        trial(seed, padding=padding, epochs=1, max_steps=4, **fields, **change) for seed, change in enumerate(changes)
    ]
    together = loop.train(trials)
    for places in ([1], [3, 1], [0, 2, 1]):
        found = loop.train([trials[place] for place in places])
        assert all(same_lane(one, together[place]) for place, one in zip(places, found, strict=True))
    assert len({result.measured.weights_sha256 for result in together}) == len(trials)
    if padding == "dataset":
        monkeypatch.setattr(replayer, "RECORDING_PAYS", 0)
        made = pretrained.network(trials[0].recipe.model, 2, trials[0].recipe.peft_config).recordings
        made.clear()
        assert all(same_lane(*pair) for pair in zip(loop.train(trials), together, strict=True))
        whats = {key[0].split()[0] for key, play in made.items() if play}  # type: ignore[attr-defined,index]
        assert whats == {"step", "logits"}


def test_alpha_differs_from_lane_to_lane(trial: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    trials = [trial(1, method="lora", epochs=1, lora_alpha=alpha) for alpha in (16.0, 1.0, 64.0)]
    assert len({one.recipe.shape for one in trials}) == 1
    alone = [loop.train([one])[0] for one in trials]
    assert len({result.measured.weights_sha256 for result in alone}) == 3
    pretrained.network(trials[0].recipe.model, 2, trials[0].recipe.peft_config).recordings.clear()
    monkeypatch.setattr(replayer, "RECORDING_PAYS", 0)
    assert all(same_lane(*pair) for pair in zip(loop.train(trials), alone, strict=True))
    monkeypatch.setattr(replay, "record", pytest.fail)  # the same recording serves other scales
    assert all(same_lane(*pair) for pair in zip(loop.train(trials[::-1]), alone[::-1], strict=True))


@pytest.mark.parametrize("kind", DECODERS)
@pytest.mark.parametrize("method", ["full", "lora"])
def test_lanes_of_decoders_keep_to_themselves(
    trial: Make, model: Callable[[str], ModelSpec], monkeypatch: pytest.MonkeyPatch, kind: str, method: str
) -> None:
    trials = [trial(seed, model=model(kind), method=method, dropout=0.3, epochs=1) for seed in (1, 2, 3)]
    together = loop.train(trials)
    assert same_lane(loop.train(trials[1:2])[0], together[1])
    assert same_lane(loop.train(trials[::-1])[2], together[0])
    if method == "lora":
        monkeypatch.setattr(replayer, "RECORDING_PAYS", 0)
        assert all(same_lane(*pair) for pair in zip(loop.train(trials), together, strict=True))


@pytest.mark.parametrize("kind", ["roberta", "albert", "electra", "distilbert", "deberta-v2"])
def test_lanes_of_every_family_keep_to_themselves_with_lora(
    trial: Make, model: Callable[[str], ModelSpec], kind: str
) -> None:
    trials = [trial(seed, model=model(kind), method="lora", dropout=0.3, epochs=1) for seed in (1, 2, 3)]
    together = loop.train(trials)
    assert same_lane(loop.train(trials[1:2])[0], together[1])
    assert not same_lane(together[0], together[1])


@pytest.mark.parametrize("fields", METHODS[2:3] + METHODS[4:5], ids=words)
def test_a_run_that_was_cut_goes_on_to_the_same_bits(trial: Make, tmp_path: Path, fields: dict[str, object]) -> None:
    trials = [trial(1, dropout=0.3, **fields), trial(2, lr=1e-2, **fields)]
    surroundings = Environment(
        device="cpu", device_name="a processor", threads=1, pack_size=2, harness="0", commit=None, python="3",
        torch="2", transformers="5",
    )  # fmt: skip

    def cut(run: TrainingRun) -> None:
        if run.updates == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop.train(trials, callbacks=[cut], checkpoint=Checkpoints(tmp_path, 0).of(trials, surroundings))
    steps: list[int] = []
    kept = Checkpoints(tmp_path, math.inf).of(trials, surroundings)
    found = loop.train(trials, callbacks=[lambda run: steps.append(run.updates)], checkpoint=kept)
    assert steps == list(range(8, 17))
    assert all(same_lane(*pair) for pair in zip(found, loop.train(trials), strict=True))


@pytest.mark.parametrize("fields", METHODS, ids=words)
def test_scales_and_biases_are_not_decayed(trial: Make, fields: dict[str, object]) -> None:
    run = begin([trial(1, **fields)])
    parts = torch.split(run.optimizer.decayed, [view.numel() for view in run.lanes.views.values()])
    for name, part in zip(run.lanes.views, parts, strict=True):
        free = name.endswith("bias") or "LayerNorm" in name or "ia3" in name
        assert part.unique().tolist() == [0.0 if free else 1.0], name


# ------------------------------------------------------------------------------------------------------- decoders


@pytest.mark.parametrize("kind", DECODERS)
def test_a_decoder_gives_under_vmap_what_transformers_gives(model: Callable[[str], ModelSpec], kind: str) -> None:
    """On its last real token, of texts padded on the right."""
    spec = model(kind)
    network = pretrained.network(spec, 3)
    lanes = [lane(network, seed) for seed in (1, 2)]
    ids, lengths = batch()
    logits = ours(network, lanes, network.inputs(ids, lengths, None))
    for number, one in enumerate(lanes):
        theirs = copy.deepcopy(plain(spec, network, one))
        theirs.load_state_dict(theirs.state_dict() | one)
        mask = (torch.arange(9) < lengths[number][:, None]).long()
        with torch.no_grad():
            expected = theirs(input_ids=ids[number], attention_mask=mask).logits
        torch.testing.assert_close(logits[number], expected, rtol=1e-4, atol=1e-5)
    later = ids.clone()
    later[0, 0, 8] = 1 + later[0, 0, 8] % 18  # the last token alone sees itself: it changes its own text's logits
    changed = ours(network, lanes, network.inputs(later, lengths, None))
    assert not torch.equal(changed[0, 0], logits[0, 0])
    assert torch.equal(changed[0, 1:], logits[0, 1:])


@pytest.mark.parametrize(("kind", "method"), [("gpt2", "full"), ("llama", "lora")])
def test_a_decoder_learns_what_can_be_learnt(
    trial: Make, model: Callable[[str], ModelSpec], kind: str, method: str
) -> None:
    one = trial(1, model=model(kind), lr=3e-2 if method == "lora" else 1e-2, method=method, epochs=12, dropout=0.0)
    score = loop.train([one])[0].measured.final_score
    assert score is not None
    assert score > 0.8


def test_a_decoder_without_a_padding_token_pads_with_its_end(build: Build, tmp_path: Path) -> None:
    folder = build("gpt2")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    bare = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, eos_token="[SEP]")
    transformers.AutoModel.from_pretrained(folder).save_pretrained(tmp_path)
    bare.save_pretrained(tmp_path)
    spec = ModelSpec(name="bare", folder=str(tmp_path))
    assert pretrained.tokenizer(spec).pad_token == "[SEP]"
    assert pretrained.network(spec, 2).module.config.pad_token_id == 3  # type: ignore[union-attr]


# ------------------------------------------------------------------------------------------------------- bad input

SWEEP = "task: rte\nmodel: embedded\nlr: 1e-5\nepochs: 1\nseeds: 1\n"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("method: lora\nlora_rank: 0", "lora_rank must be a whole number >= 1 (got 0)"),
        ("method: lora\nlora_alpha: -1", "lora_alpha must be > 0 (got -1)"),
        ("method: LoRA", "method must be one of full, head, top_layers, lora, prefix"),
        ("lora_rank: 4", "lora_rank: 4 requires method: lora (got method: full)"),
        ("method: [head, bitfit]\nlora_targets: query", "lora_targets: query requires method: lora (got method: head)"),
        ("method: lora\nvirtual_tokens: 5", "virtual_tokens: 5 requires method: prefix or prompt"),
        ("method: prefix\nvirtual_tokens: 0", "virtual_tokens must be a whole number >= 1 (got 0)"),
        ("method: lora\nadapter_size: 8", "adapter_size: 8 requires method: adapter"),
        ("method: adapter\nadapter_size: 1", "adapter_size must be a whole number >= 2 (got 1)"),
        ("method: top_layers", "method: top_layers requires the key top_layers"),
        ("top_layers: 3", "top_layers: 3 requires method: top_layers (got method: full)"),
    ],
)
def test_settings_that_make_no_sense_are_one_line_when_loaded(tmp_path: Path, lines: str, said: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(f"{SWEEP}{lines}\n")
    with pytest.raises(HarnessError) as caught:
        load(path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "fields", "said"),
    [
        ("bert", {"method": "top_layers", "top_layers": 3}, "top_layers must be at most the model's 2 layers (got 3)"),
        (
            "bert",
            {"method": "lora", "lora_targets": "query,q_proj"},
            "(got 'q_proj'). Allowed: attention.self.query, attention.self.key, attention.self.value, "
            "attention.output.dense, intermediate.dense, output.dense, bert.pooler.dense.",
        ),
        ("albert", {"method": "top_layers", "top_layers": 1}, "which has 2 layers that share one set of weights"),
        ("albert", {"method": "prefix"}, "method: prefix cannot be used with a model of the type 'albert'"),
        ("deberta-v2", {"method": "prefix"}, "which has attention that takes no keys and values"),
        ("deberta", {"method": "adapter"}, "'deberta'. Allowed: bert, roberta, xlm-roberta, camembert, electra,"),
        ("llama", {"method": "bitfit"}, "a model of the type 'llama', which has no biases"),
        (
            "bert",
            {"method": "prompt", "virtual_tokens": 31},
            "virtual_tokens must be at most 30, to leave room for the text in 32 positions (got 31)",
        ),
    ],
)
def test_a_method_that_the_model_cannot_do_is_refused_before_training(
    trial: Make, model: Callable[[str], ModelSpec], tmp_path: Path, kind: str, fields: dict[str, object], said: str
) -> None:
    one = trial(1, model=model(kind), **fields)
    sweep = Sweep(
        name="bad", profile="default", title="Bad", cells=(Cell(axes=(), recipe=one.recipe),), seeds=(one.seeds,)
    )
    with pytest.raises(HarnessError) as caught:
        driver.run(sweep, Store(tmp_path / "bad"), Options(in_process=True), lambda progress: None)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(HarnessError):
        pretrained.network(one.recipe.model, 2, one.recipe.peft_config)


# -------------------------------------------------------------------------------------------------------- estimates


@pytest.fixture
def without_pooler(tmp_path: Path) -> ModelSpec:
    """A BERT as many a pretraining writes it: its pooler has no weights and is drawn with the head."""
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 32}
    config = transformers.BertConfig(vocab_size=30, num_hidden_layers=2, **sizes)
    transformers.BertModel(config, add_pooling_layer=False).save_pretrained(tmp_path)
    return ModelSpec(name="without-pooler", folder=str(tmp_path))


def test_lora_leaves_a_pooler_without_weights_to_the_head(without_pooler: ModelSpec) -> None:
    full = pretrained.network(without_pooler, 2)
    assert full.head[:2] == ("bert.pooler.dense.weight", "bert.pooler.dense.bias")
    found = pretrained.network(without_pooler, 2, Method("lora", lora_targets="query,pooler.dense"))
    alone = pretrained.network(without_pooler, 2, Method("lora", lora_targets="query"))
    assert found.head == full.head
    assert list(found.pretrained) == list(alone.pretrained)
    assert set(found.head) < set(found.pretrained)
    one, other = (network.initialised(torch.Generator().manual_seed(3)) for network in (found, full))
    assert all(torch.equal(one[name], other[name]) for name in full.head)  # one seed, one head
    with pytest.raises(HarnessError, match=r"lora_targets 'pooler\.dense' has no pretrained layer"):
        pretrained.check(without_pooler, Method("lora", lora_targets="pooler.dense"))


def test_lora_adapts_a_pooler_that_has_weights(build: Build) -> None:
    spec = ModelSpec(name="with-pooler", folder=str(build("bert")))
    pretrained.check(spec, Method("lora", lora_targets="pooler.dense"))
    found = pretrained.network(spec, 2, Method("lora", lora_targets="pooler.dense"))
    assert list(found.pretrained)[:2] == [f"bert.pooler.dense.lora_{one}.default.weight" for one in "AB"]
    assert found.head == ("classifier.weight", "classifier.bias")


@pytest.mark.parametrize("fields", METHODS[:3] + METHODS[4:], ids=words)
def test_the_estimate_of_what_is_trained_is_near(
    trial: Make, model: Callable[[str], ModelSpec], fields: dict[str, object]
) -> None:
    recipe = trial(1, **fields).recipe
    network = pretrained.network(recipe.model, 2, recipe.peft_config)
    found = model_shape.trained_count(recipe)
    assert found is not None
    assert found == pytest.approx(network.parameters - HEAD, rel=0.25, abs=1)


def test_with_lora_many_lanes_fit_where_few_would(tmp_path: Path) -> None:
    """BERT-large's shape: 335 million values five times for a lane of its own, or once and a little a lane."""

    def recipe(**fields: object) -> Recipe:
        given = {
            "task": "rte",
            "model": "bert-large-uncased",
            "lr": 1e-5,
            "epochs": 1,
            "batch_size": 1,
            "max_length": 16,
        }
        return Recipe.model_validate(given | fields)

    memory = 12 * 2**30
    assert lanes_memory.most_lanes(recipe(), "cuda", memory) == 1
    assert lanes_memory.most_lanes(recipe(method="lora"), "cuda", memory) == 32
    assert lanes_memory.most_lanes(recipe(method="lora"), "cuda", 2**30) == 1  # 1.3 GB are the base alone
    lane = lanes_memory.lane_bytes(recipe(method="lora"), model_shape.trained_count(recipe(method="lora")))
    assert lane is not None
    assert lane < 0.05 * 5 * 4 * 335e6


def test_gpt2s_shape_is_read_by_its_own_names(build: Build) -> None:
    spec = ModelSpec(name="g", folder=str(build("gpt2")))
    assert model_shape.parameter_count(spec) == pytest.approx(pretrained.network(spec, 2).parameters, rel=0.1)
