"""How the measured servers were run, and what their engine adds to the kernels' time.

A server's start-up script says more than a row of measurements: in which format the cache is, by which kernels the
experts run, and which kernels are fused. Those of InferenceX's rows are in its repository
(github.com/SemiAnalysisAI/InferenceX, `benchmarks/`). vLLM adds the residual within the kernel of the norm that follows
(`fused_add_rms_norm`, `vllm/model_executor/layers/layernorm.py`), and with `enable_fi_allreduce_fusion` both within the
all-reduce: a decode step, whose small kernels take a launch each, is shorter by theirs.

The engine itself adds two things, both fitted as facts on `e2e_serving.csv`, Llama-3.1-70B at concurrency 8 and above:

* A step with a prompt longer than the captured CUDA graphs (512 tokens by default in vLLM) is launched kernel by kernel
  from Python. It takes no less than PREFILL_LAYER_S per layer, the floor under the H100's and the B200's times to first
  token where eight devices share the kernels. About a dozen launches per layer make that 30 us each; the eager calls of
  one quantised product that the kernel measurements hold take 60 to 90 us (`host_s` of the calibrations).
* Kernels that are compiled, downloaded or loaded at their first use hold up the first requests of a run. vLLM's pull
  request 23439 (2025-08-22) describes it for FlashInfer, which runs attention on data-centre Blackwell; on Hopper
  attention is vLLM's own, and the data show no such delay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from graphsim.hardware import Hardware

PREFILL_LAYER_S = 0.35e-3
"""Host time of one layer of an uncaptured step (fitted: 0.30 to 0.45 ms on halves of the rows)."""

FIRST_USE_S = 0.65
"""Delay of a run's first requests where FlashInfer runs attention (fitted: 0.48 to 0.68 s on halves of the rows)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """What a start-up script sets.

    kv: format of the cache ("" for the activations'); experts: format whose kernels run the experts ("" for their own)
    captured_tokens: longest step that runs as a captured graph; first_use_s: delay of the first requests of a run
    data_parallel: whether the script passes replicas of attention on to the engine
    norms_in_all_reduce: whether norms run within the all-reduce before them
    """

    kv: str = ""
    experts: str = ""
    captured_tokens: float = 512.0
    first_use_s: float = 0.0
    data_parallel: bool = True
    norms_in_all_reduce: bool = False

    def prefill_s(self, kernels_s: float, layers: float, tokens: float) -> float:
        """Seconds of a prompt's step, from those of its kernels: the host's pace where it is not captured."""
        host_s = PREFILL_LAYER_S * layers if tokens > self.captured_tokens else 0.0
        return float((kernels_s**4 + host_s**4) ** 0.25)

    def step_s(self, kernels_s: float, seconds: Mapping[str, float], devices: float) -> float:
        """Seconds of a decode step, from those of its kernels one by one and their sums by operation type."""
        fused = ("ADD", "NORM") if self.norms_in_all_reduce and devices > 1 else ("ADD",)
        return kernels_s - sum(seconds.get(name, 0.0) for name in fused)


def server_of(model: str, hardware: Hardware) -> Server:
    """The server behind InferenceX's rows of a model (`llama-3.1-70b`) on a device.

    Llama: `70b_fp8_b200_docker.sh`, `70b_fp8_h100_slurm.sh`: `kv-cache-dtype: fp8`, on Blackwell
    `cudagraph_mode: FULL_DECODE_ONLY` and `enable_fi_allreduce_fusion`. gpt-oss: `gptoss_fp4_h100.sh`:
    `VLLM_MXFP4_USE_MARLIN=1` (the kernels that the measurements list under int4), graphs up to 2048 tokens. MiniMax:
    `minimaxm2.5_fp8_h100.sh` knows `--tensor-parallel-size` and `--enable-expert-parallel` only; rows with replicas
    measure the same as those without.
    """
    flashinfer = hardware.architecture == "blackwell"
    first_use_s = FIRST_USE_S if flashinfer else 0.0
    if model.startswith("llama-3.1-70b"):
        captured = 0.0 if flashinfer else 512.0
        return Server(kv="fp8", captured_tokens=captured, first_use_s=first_use_s, norms_in_all_reduce=flashinfer)
    if model.startswith("gpt-oss") and hardware.architecture == "hopper":
        return Server(experts="int4", captured_tokens=2048.0)
    return Server(first_use_s=first_use_s, data_parallel=not model.startswith("minimax-m2.5"))
