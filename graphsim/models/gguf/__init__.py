"""GGUF files: llama.cpp's architectures as Hugging Face configs, its tensors as modules, its types as formats."""
