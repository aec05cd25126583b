"""graphsim: a graph-based performance simulator for transformer models, with LoRA at its heart.

    import graphsim as gs
    estimate = gs.simulate("llama-3.1-8b", "h100-sxm", batch=8, lora=gs.LoraConfig(rank=16))
    estimate.ttft_s, estimate.tpot_s, estimate.memory.fits

Names are loaded when they are first used, so importing the package costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphsim.analysis.advice import lora_advice as lora_advice
    from graphsim.analysis.break_even import break_even as break_even
    from graphsim.analysis.break_even import break_even_curve as break_even_curve
    from graphsim.analysis.compare import compare_lora as compare_lora
    from graphsim.analysis.explain import explain as explain
    from graphsim.analysis.explanation import Explanation as Explanation
    from graphsim.analysis.fit import Fit as Fit
    from graphsim.analysis.fit import fit as fit
    from graphsim.analysis.lifecycle import lifecycle as lifecycle
    from graphsim.analysis.lora_document import create_full_decode_model as create_full_decode_model
    from graphsim.analysis.lora_document import create_full_prefill_model as create_full_prefill_model
    from graphsim.analysis.lora_document import estimate_end_to_end_performance as estimate_end_to_end_performance
    from graphsim.analysis.match_report import match_report as match_report
    from graphsim.analysis.sensitivity import sensitivity as sensitivity
    from graphsim.analysis.slots import adapter_footprint as adapter_footprint
    from graphsim.analysis.slots import adapters_that_fit as adapters_that_fit
    from graphsim.analysis.slots import footprint as footprint
    from graphsim.analysis.slots import kv_tokens_left as kv_tokens_left
    from graphsim.compile.step import CompiledStep as CompiledStep
    from graphsim.compile.step import compile_step as compile_step
    from graphsim.cost.kernel_intervals import kernel_intervals as kernel_intervals
    from graphsim.cost.kernels import predict_kernels as predict_kernels
    from graphsim.deployment.deployment import Deployment as Deployment
    from graphsim.deployment.parallelism import Parallelism as Parallelism
    from graphsim.errors import ConfigError as ConfigError
    from graphsim.errors import GraphError as GraphError
    from graphsim.errors import GraphsimError as GraphsimError
    from graphsim.errors import HardwareError as HardwareError
    from graphsim.errors import InfeasibleError as InfeasibleError
    from graphsim.export.chakra import to_chakra as to_chakra
    from graphsim.export.deployment_files import deployment_file as deployment_file
    from graphsim.export.dot import to_dot as to_dot
    from graphsim.export.explore.page import explore as explore
    from graphsim.export.html import to_html as to_html
    from graphsim.export.node_link import from_json as from_json
    from graphsim.export.node_link import to_json as to_json
    from graphsim.export.trace import to_trace as to_trace
    from graphsim.export.training_dot import training_dot as training_dot
    from graphsim.graph import Pass as Pass
    from graphsim.graph import add as add
    from graphsim.graph import rewrite as rewrite
    from graphsim.graph import to_text as to_text
    from graphsim.graph import total_work as total_work
    from graphsim.graph import unroll as unroll
    from graphsim.graph import validate as validate
    from graphsim.graph.critical import critical_path as critical_path
    from graphsim.hardware import Hardware as Hardware
    from graphsim.hardware import list_hardware as list_hardware
    from graphsim.hardware import load_hardware as load_hardware
    from graphsim.lora.config import LoraConfig as LoraConfig
    from graphsim.lora.injection import inject as inject
    from graphsim.lora.profile import EngineProfile as EngineProfile
    from graphsim.lora.profile import list_engines as list_engines
    from graphsim.lora.profile import load_profile as load_profile
    from graphsim.models.capture import capture as capture
    from graphsim.models.checking import check_checkpoint as check_checkpoint
    from graphsim.models.checkpoint.report import CheckpointReport as CheckpointReport
    from graphsim.models.config import ModelConfig as ModelConfig
    from graphsim.models.loading import get_configs as get_configs
    from graphsim.models.loading import list_models as list_models
    from graphsim.models.loading import load_model as load_model
    from graphsim.models.media import Media as Media
    from graphsim.ops.base import OpType as OpType
    from graphsim.ops.base import Work as Work
    from graphsim.ops.precision import Precision as Precision
    from graphsim.ops.precision import load_precision as load_precision
    from graphsim.passes.shard import shard as shard
    from graphsim.result import Estimate as Estimate
    from graphsim.result import PhaseEstimate as PhaseEstimate
    from graphsim.serving.capacity import Capacity as Capacity
    from graphsim.serving.capacity import capacity as capacity
    from graphsim.serving.comparison import compare_serving as compare_serving
    from graphsim.serving.disaggregated.transfer import Transfer as Transfer
    from graphsim.serving.engine_limits import EngineLimits as EngineLimits
    from graphsim.serving.fleet.sizing import size_fleet as size_fleet
    from graphsim.serving.serve import serve as serve
    from graphsim.serving.service import Service as Service
    from graphsim.simulation import annotate as annotate
    from graphsim.simulation import build_graph as build_graph
    from graphsim.simulation import lora_parameters as lora_parameters
    from graphsim.simulation import simulate as simulate
    from graphsim.speculation.speculation import Speculation as Speculation
    from graphsim.sweeps.best import best as best
    from graphsim.sweeps.best import pareto as pareto
    from graphsim.sweeps.parquet import sweep_to_parquet as sweep_to_parquet
    from graphsim.sweeps.sweep import sweep as sweep
    from graphsim.sweeps.training import sweep_training as sweep_training
    from graphsim.sweeps.training_best import best_training as best_training
    from graphsim.traffic.classes import RequestClass as RequestClass
    from graphsim.traffic.client import Client as Client
    from graphsim.traffic.lengths import RangeRatio as RangeRatio
    from graphsim.traffic.popularity import Drift as Drift
    from graphsim.traffic.rates import Bursts as Bursts
    from graphsim.traffic.rates import Ramp as Ramp
    from graphsim.traffic.sessions import Sessions as Sessions
    from graphsim.traffic.traffic import Traffic as Traffic
    from graphsim.training.estimate import TrainEstimate as TrainEstimate
    from graphsim.training.estimate import TrainMemory as TrainMemory
    from graphsim.training.fits import largest_micro_batch as largest_micro_batch
    from graphsim.training.fits import longest_sequence as longest_sequence
    from graphsim.training.methods import list_methods as list_methods
    from graphsim.training.optimizers import list_optimizers as list_optimizers
    from graphsim.training.plan import Plan as Plan
    from graphsim.training.plan import fine_tune_plan as fine_tune_plan
    from graphsim.training.recipe import list_recipes as list_recipes
    from graphsim.training.train import train as train

_HOME = {
    "analysis.advice": ("lora_advice",),
    "analysis.break_even": ("break_even", "break_even_curve"),
    "analysis.compare": ("compare_lora",),
    "analysis.explain": ("explain",),
    "analysis.explanation": ("Explanation",),
    "analysis.fit": ("Fit", "fit"),
    "analysis.lifecycle": ("lifecycle",),
    "analysis.lora_document": (
        "create_full_decode_model",
        "create_full_prefill_model",
        "estimate_end_to_end_performance",
    ),
    "analysis.match_report": ("match_report",),
    "analysis.sensitivity": ("sensitivity",),
    "analysis.slots": ("adapter_footprint", "adapters_that_fit", "footprint", "kv_tokens_left"),
    "compile.step": ("CompiledStep", "compile_step"),
    "cost.kernel_intervals": ("kernel_intervals",),
    "cost.kernels": ("predict_kernels",),
    "deployment.deployment": ("Deployment",),
    "deployment.parallelism": ("Parallelism",),
    "errors": ("ConfigError", "GraphError", "GraphsimError", "HardwareError", "InfeasibleError"),
    "export.chakra": ("to_chakra",),
    "export.deployment_files": ("deployment_file",),
    "export.dot": ("to_dot",),
    "export.explore.page": ("explore",),
    "export.html": ("to_html",),
    "export.node_link": ("from_json", "to_json"),
    "export.trace": ("to_trace",),
    "export.training_dot": ("training_dot",),
    "graph.critical": ("critical_path",),
    "graph": ("Pass", "add", "rewrite", "to_text", "total_work", "unroll", "validate"),
    "hardware": ("Hardware", "list_hardware", "load_hardware"),
    "lora.config": ("LoraConfig",),
    "lora.injection": ("inject",),
    "lora.profile": ("EngineProfile", "list_engines", "load_profile"),
    "models.capture": ("capture",),
    "models.checking": ("check_checkpoint",),
    "models.checkpoint.report": ("CheckpointReport",),
    "models.config": ("ModelConfig",),
    "models.loading": ("get_configs", "list_models", "load_model"),
    "models.media": ("Media",),
    "ops.base": ("OpType", "Work"),
    "ops.precision": ("Precision", "load_precision"),
    "passes.shard": ("shard",),
    "result": ("Estimate", "PhaseEstimate"),
    "serving.capacity": ("Capacity", "capacity"),
    "serving.comparison": ("compare_serving",),
    "serving.disaggregated.transfer": ("Transfer",),
    "serving.engine_limits": ("EngineLimits",),
    "serving.fleet.sizing": ("size_fleet",),
    "serving.serve": ("serve",),
    "serving.service": ("Service",),
    "simulation": ("annotate", "build_graph", "lora_parameters", "simulate"),
    "speculation.speculation": ("Speculation",),
    "sweeps.best": ("best", "pareto"),
    "sweeps.parquet": ("sweep_to_parquet",),
    "sweeps.sweep": ("sweep",),
    "sweeps.training": ("sweep_training",),
    "sweeps.training_best": ("best_training",),
    "traffic.classes": ("RequestClass",),
    "traffic.client": ("Client",),
    "traffic.lengths": ("RangeRatio",),
    "traffic.popularity": ("Drift",),
    "traffic.rates": ("Bursts", "Ramp"),
    "traffic.sessions": ("Sessions",),
    "traffic.traffic": ("Traffic",),
    "training.estimate": ("TrainEstimate", "TrainMemory"),
    "training.fits": ("largest_micro_batch", "longest_sequence"),
    "training.methods": ("list_methods",),
    "training.optimizers": ("list_optimizers",),
    "training.plan": ("Plan", "fine_tune_plan"),
    "training.recipe": ("list_recipes",),
    "training.train": ("train",),
}
"""Which module each public name comes from."""

_MODULES = {name: module for module, names in _HOME.items() for name in names}

__all__ = sorted(_MODULES)  # noqa: PLE0605
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Load a public name from its module; Python then remembers it."""
    if name not in _MODULES:
        raise AttributeError(f"module 'graphsim' has no attribute '{name}'")
    value = getattr(import_module(f"graphsim.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
