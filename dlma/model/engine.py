"""The engine: every log-probability that scoring, reference, training, judging and perplexity need.

One interface, two layouts. `tree` shares prefixes (trees.py); `dense` gives each sequence a row of its own, the
model's own mask and its own positions (dense.py). Which one is used is decided by a self-check that compares both
(layout_check.py), and is said in one line. What it did is counted (meter.py); when memory runs out the token budget is
halved.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from dlma import cores
from dlma.functional.logprob import KEEP_BYTES, chunked_token_logp, sum_by_owner, token_logp
from dlma.functional.products import is_linear
from dlma.model import layout_check, memory, trees
from dlma.model.dense import dense_logits, dense_states, reason_against_padding
from dlma.model.language import LanguageModel
from dlma.model.masks import ancestors, attention_kinds, tree_masks
from dlma.model.meter import Meter, attention_width, body_weights, matmul_peak
from dlma.model.original import TOLERANCE
from dlma.model.shared_prefix import SharedPrefix, Suffix, common_trunk, without_trunk
from dlma.model.trees import Rows, Tree
from dlma.model.work import work

_OVERHEAD = {"cpu": 64, "cuda": 1024}  # what a batch costs beyond its tokens, in tokens
_said: set[str] = set()
Form = Callable[[Tensor, Rows], list]  # what is kept of the token log-probs of some rows, one item per sequence


def say_once(line: str) -> None:
    """Print a line on stderr, unless this process already did."""
    if line not in _said:
        _said.add(line)
        print(line, file=sys.stderr)


def threads_in_words() -> str:
    """How many threads torch uses, and why: `2 threads: 2 of 8 cores by the container's quota`."""
    count = torch.get_num_threads()
    return f"{count} {'thread' if count == 1 else 'threads'}" + (f": {cores.said}" if cores.said else "")


class Engine:
    """Response log-probs of a model.

    token_budget: rows times width of one forward pass, at most
    layout: "tree", "dense", or "auto" (a self-check decides, again for each longer row)
    chunk, keep: tokens of one piece of the head, and bytes of logits held for the backward pass (functional/logprob.py)
    checkpointing: activations are computed again in the backward pass instead of being kept
    """

    def __init__(
        self,
        model: LanguageModel,
        *,
        token_budget: int = 8192,
        layout: str = "auto",
        chunk: int | None = None,
        keep: int = KEEP_BYTES,
        checkpointing: bool = False,
        notice: Callable[[str], None] = say_once,
    ) -> None:
        self.model = model
        self.token_budget = token_budget
        self.layout = layout
        self.chunk = chunk
        self.keep = keep
        self.checkpointing = checkpointing
        self.notice = notice
        self.meter = Meter()
        self.trunk: SharedPrefix | None = None
        self._decides = layout == "auto"
        self._why = self._apart = ""
        self._said_of = ""  # the layout that was described last, or "all": nothing is to be said
        self._halvings = 0

    def plan(self, groups: Sequence[Sequence[trees.Completion]]) -> list[Tree]:
        """One tree per group under the tree layout; under the dense one, a tree per sequence."""
        if self._decides:
            self.layout, self._why = self._choose(max(_tree_size(group) for group in groups))
        planned = self._planned(groups)
        if self._said_of not in (self.layout, "all"):
            self._said_of = self.layout
            self.notice(self.describe())
        return planned

    def _planned(self, groups: Sequence[Sequence[trees.Completion]]) -> list[Tree]:
        if self.layout == "tree":
            return [trees.build_tree(group) for group in groups]
        alone = [trees.build_tree([sequence]) for group in groups for sequence in group]
        self._apart = reason_against_padding(self.model, trees.padded_width(max(map(len, alone))))
        return alone

    def batches(self, lengths: Sequence[int], each: int = 1) -> list[list[int]]:
        """Indices of items of these lengths, `each` rows an item, cut into passes that fit the token budget."""
        overhead = _OVERHEAD.get(self.model.device.type, 64)
        return trees.token_budget_batches(lengths, self.token_budget // each, -(-overhead // each))

    def collate(self, planned: Sequence[Tree]) -> Rows:
        """Trees as padded rows on the model's device."""
        return trees.collate(planned, self.model.pad_id).to(self.model.device)

    def token_logp(self, rows: Rows, trunk: SharedPrefix | None = None) -> Tensor:
        """Log-prob of each target token of `rows`, (targets,) float32, nats; `trunk` is what the rows lack."""
        if not self.model.plain_head:
            return self._logp_of_own_head(rows, trunk)
        return self._logp_of_states(self.states(rows, trunk).index_select(0, rows.predictor), rows.target)

    def token_logp_and_states(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """`token_logp`, and the states that predict the targets, (targets, hidden): what a value head reads."""
        wanted = self.states(rows).index_select(0, rows.predictor)
        if self.model.plain_head:
            return self._logp_of_states(wanted, rows.target), wanted
        return self._logp_of_own_head(rows, None), wanted

    def states(self, rows: Rows, trunk: SharedPrefix | None = None) -> Tensor:
        """Last hidden states of all places of `rows`, (rows * width, hidden); `trunk` is what the rows lack."""
        self._count(rows)
        with self._passes():
            if self.layout == "dense":
                return dense_states(self.model, rows.ids, rows.lengths).flatten(0, 1)
            return self.model.states(*self._tree_pass(rows, trunk)).flatten(0, 1)

    def _logp_of_states(self, states: Tensor, target: Tensor) -> Tensor:
        with self._passes():
            head, in_place = self.model.head_layer, self.model.adds_gradients
            return chunked_token_logp(states, target, head, self.chunk, self.keep, in_place)

    def _logp_of_own_head(self, rows: Rows, trunk: SharedPrefix | None) -> Tensor:
        """By the model's own forward, for a head that is not plain."""
        self._count(rows)
        with self._passes():
            if self.layout == "dense":
                logits = dense_logits(self.model, rows.ids, rows.lengths)
            else:
                logits = self.model.full_logits(*self._tree_pass(rows, trunk))
            return token_logp(logits.flatten(0, 1).index_select(0, rows.predictor), rows.target)

    @contextmanager
    def _passes(self) -> Iterator[None]:
        """The precision of a pass, and what is kept of it for the backward pass."""
        checkpointed = self.checkpointing and torch.is_grad_enabled()
        with self.model.precision(), self.model.checkpointed(checkpointed):
            yield

    def response_logp(self, rows: Rows, trunk: SharedPrefix | None = None) -> Tensor:
        """Log-prob of each response of `rows`, summed over its tokens, (sequences,) float32, nats."""
        return sum_by_owner(self.token_logp(rows, trunk), rows.owner, rows.slot, rows.sequences)

    @torch.no_grad()
    def score(self, groups: Sequence[Sequence[trees.Completion]]) -> list[list[float]]:
        """The log-prob of every sequence, in the caller's order; nothing is kept for a backward pass."""
        return self._read(groups, _sums)

    @torch.no_grad()
    def score_tokens(self, groups: Sequence[Sequence[trees.Completion]]) -> list[list[list[float]]]:
        """The log-prob of each response token of every sequence, in the caller's order; `score` gives their sums."""
        return self._read(groups, _by_sequence)

    def _read(self, groups: Sequence[Sequence[trees.Completion]], form: Form) -> list[list]:
        if not groups:
            return []
        planned = self.plan(groups)
        self.meter.groups += len(groups)
        with self.meter.timed():
            flat = self._score(planned, form)
        values = iter([value for row in flat for value in row])
        return [[next(values) for _ in group] for group in groups]

    def _score(self, planned: list[Tree], form: Form) -> list[list]:
        trunk = self._trunk(planned)
        branches = [Suffix(tree, []) if trunk is None else without_trunk(tree, trunk.tree) for tree in planned]
        work().foresee(sum(len(branch.tree) for branch in branches))
        done: dict[int, list] = {}
        while len(done) < len(planned):
            left = [i for i in range(len(planned)) if i not in done]
            for batch in self.batches([len(branches[i].tree) for i in left]):
                members = {left[i]: branches[left[i]] for i in batch}
                values = self._unless_memory_runs_out(list(members.values()), trunk, form)
                if values is None:
                    break
                done.update(zip(members, values, strict=True))
        return [done[i] for i in range(len(planned))]

    def _unless_memory_runs_out(
        self, branches: list[Suffix], trunk: SharedPrefix | None, form: Form
    ) -> list[list] | None:
        """The log-probs of some rows; None, and half the token budget from now on, when memory ran out."""
        try:
            return self._scored(branches, trunk, form)
        except (RuntimeError, MemoryError) as error:
            if not memory.ran_out(error):
                raise
        self._halve(memory.halved(self.token_budget, max(len(b.tree) for b in branches), len(branches)))
        return None

    def _scored(self, branches: list[Suffix], trunk: SharedPrefix | None, form: Form) -> list[list]:
        anchors = None if trunk is None else [branch.anchor for branch in branches]
        rows = trees.collate([branch.tree for branch in branches], self.model.pad_id, anchors).to(self.model.device)
        with self.model.told_by_layer(sum(len(branch.tree) for branch in branches), work().did):
            logp = iter(form(self.token_logp(rows, trunk), rows))
        return [[next(logp) for _ in branch.tree.responses] for branch in branches]

    def _halve(self, budget: int) -> None:
        self._halvings += 1
        self.token_budget = budget
        memory.release()
        self.notice(f"engine: out of memory: going on with {budget} tokens a pass; the result is the same")

    @contextmanager
    def forced(self, layout: str) -> Iterator[None]:
        """Use a layout in the block, whatever the self-check says, and count nothing."""
        before = self.layout, self._decides, self.meter, self._said_of
        self.layout, self._decides, self.meter, self._said_of = layout, False, Meter(), "all"
        try:
            yield
        finally:
            self.layout, self._decides, self.meter, self._said_of = before

    def describe(self) -> str:
        """What was chosen, in one line."""
        reason = self._why if self._decides else f"layout={self.layout}"
        sharing = "on" if self.layout == "tree" else f"off ({reason})"
        if self.layout == "dense" and self._apart:
            sharing += f", one row at a time ({self._apart})"
        again = ", checkpointing on" if self.checkpointing else ""
        why = f" ({self.model.why})" if self.model.why else ""
        return (
            f"engine: {self.model.name} on {self.model.device.type}, {str(self.model.compute_dtype)[6:]}{why}, "
            f"attention {self.model.attention}: prefix sharing {sharing}, head {self._head()}, "
            f"up to {self.token_budget} tokens a pass{again}, {threads_in_words()}"
        )

    def report(self) -> dict[str, object]:
        """What was chosen, and what the passes so far amounted to."""
        config = self.model.config
        inner = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
        peak = matmul_peak(512, config.hidden_size, inner, self.model.compute_dtype, self.model.device)
        return {
            "chosen": self.describe(),
            "layout": self.layout,
            "head": self._head(),
            "dtype": str(self.model.compute_dtype)[6:],
            "attention": self.model.attention,
            "token_budget": self.token_budget,
            "halvings": self._halvings,
            "shared_trunk_tokens": 0 if self.trunk is None else len(self.trunk.tree),
            "peak_memory_bytes": memory.peak_bytes(self.model.device),
            **self.meter.rates(peak),
        }

    def _head(self) -> str:
        if not self.model.plain_head:
            return "the model's own"
        return "in pieces" if is_linear(self.model.head_layer) else "in pieces, by autograd"

    def _tree_pass(self, rows: Rows, trunk: SharedPrefix | None) -> tuple:
        """Ids, mask, positions and cache of a pass over trees."""
        return rows.ids, self._mask(rows, trunk), rows.position, None if trunk is None else trunk.cache(len(rows.ids))

    def _mask(self, rows: Rows, trunk: SharedPrefix | None):
        kinds = attention_kinds(self.model.config)
        seen, depth = ancestors(rows.end), rows.position
        if trunk is not None:
            assert rows.anchor is not None
            seen = torch.cat([trunk.seen(rows.anchor), seen], dim=-1)
            depth = torch.cat([trunk.rows.position.expand(len(depth), -1), depth], dim=-1)
        distance = rows.position[:, :, None] - depth[:, None, :] if any(kinds.values()) else None
        return tree_masks(seen, distance, kinds, self.model.compute_dtype)

    def _choose(self, longest: int) -> tuple[str, str]:
        """The layout for rows of so many tokens, and why not the other: the same whatever rows came before these."""
        probe = min(self.model.context, -(-longest // 128) * 128)
        checked = self.model.checked
        if any(tokens >= probe and not reason for tokens, reason in checked.items()):
            return "tree", ""
        if probe not in checked:
            checked[probe] = layout_check.reason_against_sharing(self, probe, TOLERANCE[self.model.compute_dtype])
        return ("dense" if checked[probe] else "tree"), checked[probe]

    def _trunk(self, planned: list[Tree]) -> SharedPrefix | None:
        """The common trunk of these trees, computed unless it is still there from the last call."""
        if self.layout == "dense" or len(planned) < 2:
            return None
        tree = common_trunk(planned)
        if tree is None:
            return None
        version = tuple(p._version for p in self.model.network.parameters())
        if self.trunk is None or (self.trunk.tree, self.trunk.version) != (tree, version):
            rows = self.collate([tree])
            self.trunk = SharedPrefix.computed(self.model, tree, rows, self._mask(rows, None), version)
            self._count(rows)
        return self.trunk

    def _count(self, rows: Rows) -> None:
        meter, config = self.meter, self.model.config
        meter.tokens += rows.nodes
        meter.slots += rows.ids.numel()
        meter.targets += len(rows.target)
        meter.sequences += rows.sequences
        head = config.vocab_size * config.hidden_size
        attention = 2 * attention_width(config)
        products = self._body * rows.nodes + head * len(rows.target) + attention * rows.seen
        meter.flops += (6 if torch.is_grad_enabled() else 2) * products

    @property
    def _body(self) -> int:
        if not hasattr(self, "_body_weights"):
            self._body_weights = body_weights(self.model.causal, self.model.head_layer)
        return self._body_weights


def _sums(logp: Tensor, rows: Rows) -> list[float]:
    return sum_by_owner(logp, rows.owner, rows.slot, rows.sequences).tolist()


def _by_sequence(logp: Tensor, rows: Rows) -> list[list[float]]:
    lengths = torch.bincount(rows.owner, minlength=rows.sequences).tolist()
    return [part.tolist() for part in logp.split(lengths)]


def _tree_size(group: Sequence[trees.Completion]) -> int:
    return max(len(s.context) for s in group) + sum(len(s.response) for s in group)
