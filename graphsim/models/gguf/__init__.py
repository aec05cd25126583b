"""GGUF files: maps llama.cpp's architectures to Hugging Face configs, its tensors to modules, its types to formats."""
