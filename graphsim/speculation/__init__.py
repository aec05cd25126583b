"""Speculative decoding: a draft proposes tokens, the model verifies them in one step."""
