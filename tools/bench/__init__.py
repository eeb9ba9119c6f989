"""The benchmark: Craft beside a plain PyTorch loop, Hugging Face, Lightning and JAX, measured in one go."""
