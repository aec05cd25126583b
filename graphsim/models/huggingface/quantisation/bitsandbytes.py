"""bitsandbytes: every nn.Linear except those in `llm_int8_skip_modules`, in 8 or 4 bits.

transformers 5.24, `quantizers/quantizer_bnb_4bit.py` and `quantizer_bnb_8bit.py`.
"""

from __future__ import annotations

from graphsim.files.reading import Fields
from graphsim.models.huggingface.quantisation.stored import Stored, kept_out, linears
from graphsim.ops.formats import FORMATS


def bitsandbytes(quant: Fields) -> Stored | None:
    """LLM.int8(), or NF4 or FP4, which are of equal size; double quantisation also quantises the scales."""
    skipped = kept_out(quant, "llm_int8_skip_modules")
    quant.text("bnb_4bit_quant_type", "fp4", ("nf4", "fp4"))
    nested = quant.flag("bnb_4bit_use_double_quant", False)
    eight, four = (quant.flag(f"load_in_{bits}bit", quant.flag(f"_load_in_{bits}bit", False)) for bits in (8, 4))
    if not eight and not four:
        quant.problems.append(
            "quantization_config names bitsandbytes, expected load_in_4bit or load_in_8bit to be true"
        )
        return None
    return Stored(choose=linears(FORMATS["llm_int8" if eight else "nf4_dq" if nested else "nf4"], skipped))


METHODS = {"bitsandbytes": bitsandbytes}
