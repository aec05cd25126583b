"""Modules of one's own, with operations that nobody knows."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.slow

from torch import nn  # noqa: E402

import graphsim as gs  # noqa: E402
from tests.paths import ROOT  # noqa: E402


@torch.library.custom_op("graphsim_tests::smoothed", mutates_args=())
def smoothed(x: torch.Tensor) -> torch.Tensor:
    """An operation that only its author knows."""
    return x.clone()


@smoothed.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(64, 256), nn.Linear(256, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(torch.ops.graphsim_tests.smoothed(self.up(x)))


class Model(nn.Module):
    def __init__(self, layers: int = 3) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(100, 64), nn.Linear(64, 100)
        self.layers = nn.ModuleList(Layer() for _ in range(layers))

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(input_ids)
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


class Walker(Model):
    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(input_ids)
        state = x[:, 0]
        for i in range(input_ids.shape[1]):
            state = state + self.layers[0](x[:, i])
        return self.head(state)[:, None]


def test_an_unknown_operation_is_named_with_its_share_of_the_time() -> None:
    model = gs.capture(Model())
    assert any("operations without a formula" in note and "smoothed" in note for note in model.notes)
    estimate = gs.simulate(model, "h100-sxm", batch=4, input_tokens=256, output_tokens=4, engine="reference")
    shares = [re.search(r"of the (prompt|decode step), .* smoothed ([0-9.]+)%", note) for note in estimate.notes]
    found = {match[1]: float(match[2]) for match in shares if match}
    frame = estimate.prefill.to_frame()
    spent = frame["latency_s"] * frame["times"]
    exact = 100.0 * spent[frame["name"].str.contains("smoothed")].sum() / spent.sum()
    assert found.keys() == {"prompt", "decode step"}
    assert found["prompt"] == pytest.approx(exact, abs=0.06)


def test_the_module_stays_as_it_was() -> None:
    module = Model()
    before = {name: (id(tensor), tensor.device.type) for name, tensor in module.named_parameters()}
    gs.capture(module)
    assert {name: (id(tensor), tensor.device.type) for name, tensor in module.named_parameters()} == before
    assert module(torch.zeros(1, 2, dtype=torch.long)).shape == (1, 2, 100)


def test_a_loop_over_tokens_is_refused_in_one_sentence() -> None:
    with pytest.raises(gs.ConfigError, match="length became") as caught:
        gs.capture(Walker())
    assert "\n" not in str(caught.value)


def test_what_takes_no_token_ids_is_told_to_bring_examples() -> None:
    class Values(Model):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in self.layers:
                x = layer(x)
            return self.head(x)

    with pytest.raises(gs.ConfigError, match="give example inputs"):
        gs.capture(Values())
    model = gs.capture(Values(), inputs={"x": torch.empty(2, 16, 64)})
    flops = float(gs.total_work(gs.build_graph(model, "prefill", batch=2, input_tokens=16)).flops)
    assert flops == 2 * 32 * 3 * 2 * 64 * 256 + 2 * 2 * 64 * 100


class Unlayered(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.widen, self.narrow, self.out = nn.Linear(64, 256), nn.Linear(256, 64), nn.Linear(64, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(x + self.narrow(torch.relu(self.widen(x))))


def test_a_module_without_a_list_of_layers_is_captured_too() -> None:
    model = gs.capture(Unlayered(), inputs={"x": torch.empty(2, 16, 64)})
    assert model.num_parameters == sum(parameter.numel() for parameter in Unlayered().parameters())
    flops = float(gs.total_work(gs.build_graph(model, "prefill", batch=2, input_tokens=16)).flops)
    assert flops == 2 * 32 * 2 * 64 * 256 + 2 * 2 * 64 * 8
    assert gs.lora_parameters(model, gs.LoraConfig(rank=4, target_modules=["widen", "narrow"])) == 2 * 4 * (64 + 256)


def test_torch_alone_captures_a_module_of_ones_own() -> None:
    code = """
import sys
sys.modules["transformers"] = None
from tests.models.capture.test_own_modules import Model, gs
print(gs.capture(Model()).num_parameters)
try:
    gs.capture({"model_type": "llama"})
except gs.ConfigError as error:
    print(error)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    count, refusal = ran.stdout.splitlines()
    assert int(count) == sum(parameter.numel() for parameter in Model().parameters())
    assert refusal == "this needs the package 'transformers'; install it with: pip install \"graphsim-llm[torch]\""


def test_what_ends_in_no_linear_layer_is_refused() -> None:
    with pytest.raises(gs.ConfigError, match="neither a list of layers nor a linear layer at its end"):
        gs.capture(nn.Embedding(4, 4), inputs={"input": torch.zeros(2, 3, dtype=torch.long)})


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        (3, "expected a mapping of names to example tensors"),
        ({"input_ids": [1, 2]}, "input_ids.* is not allowed; expected an example tensor"),
        ({"input_ids": torch.zeros(2)}, "input_ids.* is not allowed; expected an example tensor"),
        ({"input_id": torch.zeros(1, 2)}, "input_id.* is not taken by the forward; did you mean 'input_ids'"),
    ],
)
def test_wrong_examples_are_refused_by_name(inputs: object, said: str) -> None:
    with pytest.raises(gs.ConfigError, match=said):
        gs.capture(Model(), inputs=inputs)


def test_a_name_of_the_catalog_is_captured_from_its_published_config() -> None:
    pytest.importorskip("transformers")
    assert gs.capture("qwen3-0.6b").num_parameters == gs.load_model("qwen3-0.6b").num_parameters
    with pytest.raises(
        gs.ConfigError, match="qwen4-9b: neither a folder with a readable config.json there, nor a model of the cat"
    ):
        gs.capture("qwen4-9b")


def test_a_saved_capture_is_the_capture(tmp_path: object) -> None:
    model = gs.capture(Model(), name="mine")
    again = gs.load_model(model.save(f"{tmp_path}/mine.yaml"))
    assert (again.layers, again.stem, again.head) == (model.layers, model.stem, model.head)
    assert again.num_parameters == sum(parameter.numel() for parameter in Model().parameters())
