"""Prompts: wordings, how they are rendered, and the contexts of token ids under each of them."""
