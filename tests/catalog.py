"""The catalog's models for laws that are held for each of them.

One model of each kind is checked in every run, the others where slow tests run.
"""

from __future__ import annotations

import pytest

import graphsim as gs

QUICK = (
    "gemma-2-9b", "gpt-2", "gpt-oss-120b", "gpt-oss-20b", "llama-2-13b", "llama-2-70b", "llama-2-7b",
    "llama-3.1-405b", "llama-3.1-70b", "llama-3.1-8b", "llama-3.2-1b", "llama-3.2-3b", "minimax-m2.5", "mistral-7b",
    "mixtral-8x7b", "phi-3-mini", "qwen2.5-72b", "qwen2.5-7b", "qwen3-30b-a3b", "qwen3-32b", "qwen3-8b",
)  # fmt: skip


NO_MLP = ("codestral-mamba-7b", "falcon-mamba-7b", "mamba-2.8b")
"""Models without the part that adapters call `ffn`."""


def models(but: tuple[str, ...] = ()) -> list[object]:
    """Every model as a parameter of a test, slow where another of its kind is checked in every run."""
    names = [name for name in gs.list_models() if name not in but]
    return [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow, id=name) for name in names]
