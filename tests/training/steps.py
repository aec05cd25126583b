"""Training steps that several tests look at, each simulated once."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import graphsim as gs

MODEL, DEVICE = "llama-3.2-1b", "h100-sxm"
WICKED = '<img src=x onerror=alert(1)>"; } // \\ ]]>'
"""A name that markup, DOT and JSON have to survive."""


@cache
def lora_step() -> gs.TrainEstimate:
    lora = gs.LoraConfig(rank=8, target_modules=["q_proj", "v_proj"])
    return gs.train(MODEL, DEVICE, batch=2, seq_len=512, accumulate=4, lora=lora, recipe="peft")


@cache
def wicked_step() -> gs.TrainEstimate:
    model = replace(gs.load_model(MODEL), name=WICKED)
    return gs.train(model, DEVICE, seq_len=128, lora=gs.LoraConfig(rank=8, target_modules=["q_proj"]))
