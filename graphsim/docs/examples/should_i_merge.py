"""Should I merge? One adapter for Llama-3.1-8B, on an L4 and on an H100.

Run it: `python graphsim/docs/examples/should_i_merge.py`.
"""

from __future__ import annotations

import graphsim as gs

MODEL = "llama-3.1-8b"
DEVICES = ("l4", "h100-sxm")
ADAPTER = gs.LoraConfig(rank=16, target_modules=["attn", "ffn"])
REQUESTS = {"batch": 4, "input_tokens": 512, "output_tokens": 128}


def report(device: str) -> str:
    """A few lines on one device: the three ways to serve the adapter, and what follows."""
    table = gs.compare_lora(MODEL, device, lora=ADAPTER, engine="vllm", **REQUESTS)
    advice = gs.lora_advice(MODEL, device, lora=ADAPTER, engine="vllm", **REQUESTS)
    lines = [f"{device}: {advice.choice}"]
    for name, row in table.iterrows():
        lines.append(f"  {name:8} {row['tpot_s'] * 1e3:6.2f} ms per token, {row['overhead']:+6.1%} in all")
    found = advice.break_even
    lines.append(f"  merging takes {found.merge_s * 1e3:.1f} ms once; it pays after {found.requests:.1f} requests,")
    lines.append(f"  and adapters that take turns pay for a switch every {found.switch_tokens:,.0f} tokens")
    for lever in advice.levers[:1]:
        lines.append(f"  if it has to stay dynamic: {lever.name} saves {lever.saved:.1%} of a step")
    return "\n".join(lines)


def main() -> None:
    """Print the report for each device."""
    print(f"{MODEL}, one adapter of rank {ADAPTER.rank}, batches of {REQUESTS['batch']} requests\n")
    print("\n\n".join(report(device) for device in DEVICES))


if __name__ == "__main__":
    main()
