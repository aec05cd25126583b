"""Ratio of estimate to measurement of every measured kernel, by class and size, to find the sources of errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphsim.calibration.held_out import THIN_NAME, thin_products
from graphsim.cost.families.registry import FAMILIES
from graphsim.cost.kernels import predict_with
from graphsim.hardware import Hardware

if TYPE_CHECKING:
    import pandas as pd

LIMITS = {
    "GEMM bf16": 0.09, "GEMM fp8, fp8_block": 0.15, f"GEMM bf16, {THIN_NAME}": 0.12, "decode attention": 0.12,
    "prefill attention": 0.12, "expert block": 0.22, "collectives": 0.15,
}  # fmt: skip
"""Classes of kernels, and the limit of the median error on a device that was never measured."""

SIZES = {"attention": ("kv_len", "keys"), "collectives": ("message_size", "elements of the message")}
"""The size column of each class, and its name; the size of GEMMs and experts is their number of rows."""


def size_of(kernels: str) -> tuple[str, str]:
    """The column with the size of a class's kernels, and the name of what it counts."""
    return next((size for name, size in SIZES.items() if name in kernels), ("m", "rows of the activations"))


def residuals(rows: pd.DataFrame, device: Hardware, *, own: bool = True, kin: bool = True) -> pd.DataFrame:
    """Predicted over measured latency of every row in the reference schema, once per class that it belongs to.

    Columns: device, kernels (the class), size (see `size_of`), ratio.
    own: whether the device's own calibration may be used
    kin: whether calibrations of its generation may be used
    """
    import pandas as pd

    ratio = predict_with(rows, device, own=own, kin=kin).to_numpy() / rows["latency_us"].to_numpy(dtype=float)
    parts: list[pd.DataFrame] = []
    for name, mask in kernel_classes(rows).items():
        if mask.any():
            sizes = rows[size_of(name)[0]].to_numpy(dtype=float)[mask]
            parts.append(pd.DataFrame({"device": device.name, "kernels": name, "size": sizes, "ratio": ratio[mask]}))
    if not parts:
        return pd.DataFrame({"device": [], "kernels": [], "size": [], "ratio": []})
    return pd.concat(parts, ignore_index=True)


def kernel_classes(rows: pd.DataFrame) -> dict[str, Any]:
    """Row masks of the classes in LIMITS."""
    ops = rows["op"]
    dtypes = rows["dtype"] if "dtype" in rows else ops.map(lambda op: "")
    half = (ops == "gemm") & dtypes.isin(["bfloat16", "float16", "half"])
    classes = {
        "GEMM bf16": half,
        "GEMM fp8, fp8_block": (ops == "gemm") & dtypes.isin(["fp8", "fp8_block"]),
        f"GEMM bf16, {THIN_NAME}": half & thin_products(rows),
        "decode attention": ops == "generation_attention",
        "prefill attention": ops == "context_attention",
        "expert block": ops == "moe",
        "collectives": ops.isin(FAMILIES["collectives"].ops),
    }
    return {name: classes[name].to_numpy() for name in LIMITS}
