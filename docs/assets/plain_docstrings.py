"""Docstrings as they are written: plain text in lines, in which a star or an underscore is no mark-up."""

import re

import griffe


class PlainDocstrings(griffe.Extension):
    """Escapes what Markdown would read as emphasis, and keeps the ends of lines."""

    def on_instance(self, *, obj: griffe.Object, **kwargs) -> None:
        """Change the docstring of a module, class or function once it is read."""
        if obj.docstring:
            parts = re.split(r"(`[^`\n]*`)", obj.docstring.value)
            escaped = [part if i % 2 else re.sub(r"([*_<|\\])", r"\\\1", part) for i, part in enumerate(parts)]
            obj.docstring.value = re.sub(r"\n(?=\S)", "  \n", "".join(escaped))
