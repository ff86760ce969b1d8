"""Laws of the config: any override composes or is a mistake of the user's, and what the check accepts can be built."""

from functools import cache

from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf
from source_tree import ROOT

from dlma.config import check, compose, overrides, signatures
from dlma.config.build import build
from dlma.config.hydra_internals import Loader
from dlma.config.overrides import Reading
from dlma.errors import UserError

KEYS = [
    *("seed", "recipe.lr", "recipe.beta", "recipe", "method", "model", "data.train", "labels", "judges", "experiment"),
    *("hydra.run.dir", "hydra.mode", "name", "adapter.rank", "prompts.pairs", "scored.path", "sampler", "hydra", "a.b"),
]
VALUES = [
    *("1", "-1", "1e400", "null", "true", "dlma", "''", "[]", "{}", "[1,2]", "{a: 1}", "1,2", "a,b", "range(3)", "???"),
    *("interval(0,1)", "glob(*)", "${seed}", "${nosuch}", "${oc.env:X}", "choice(1,2)", "'a=b'", "a=b", "/x y", "é"),
]
MARKS = st.text("[]{}(),:=\"'\\$+~@*.# \t\nabc019", max_size=8)
KEY = st.sampled_from(KEYS) | MARKS | st.text(max_size=5)
OVERRIDE = st.tuples(
    st.sampled_from(["", "", "+", "++", "~"]), KEY, st.sampled_from(["=", "=", "=", ""]),
    st.sampled_from(VALUES) | MARKS | st.text(max_size=6),
).map("".join)  # fmt: skip


@cache
def path():
    return compose.search_path(ROOT / "conf", None)


@settings(max_examples=200)
@given(OVERRIDE)
@example("++=")
def test_any_override_is_read_or_a_mistake_of_one_line(line):
    reading = Reading(path_loader())
    if overrides.read(line, reading) is None:
        assert reading.mistakes and all(said.strip() for said in reading.mistakes)
    else:
        assert not reading.mistakes


@cache
def path_loader():
    loader = Loader(path())
    loader.ensure_main_config_source_available()
    return loader


@settings(max_examples=8, phases=[Phase.explicit, Phase.generate])  # each composes everything
@given(st.lists(OVERRIDE, min_size=1, max_size=2), st.booleans())
@example(["++="], False)
def test_any_overrides_compose_or_are_the_users_mistake(lines, multirun):
    try:
        found = compose.plan(path(), lines, multirun)
    except UserError as reason:
        said = str(reason).splitlines()
        assert said and all(line.strip() for line in said), said
        return
    assert found.cells >= 1 and check.problems(found.cfg) == []


COMPONENTS = [
    (name, words)
    for words in ((), ("data=jsonl", "data.path=p", "model=hf", "model.path=m"), ("labels=filtered", "recipe=paper"))
    for name in ("prompts", "data", "labels", "preflight", "alerts", "scorer", "pairs")
]
ODD = [0, -1, 1, 2, 0.5, 1e-300, 1e9, 2**31, "", "a", "{text}", "{text} {affix}", "\x00", None, True, [], ["a"], [[]]]
ODD += [{}, {"a": 1}, [{"positive": {"affix": "x"}, "negative": {}}], [{"positive": {"affix": ""}, "negative": {}}]]


@cache
def composed(words):
    return compose.plan(path(), list(words), False).cfg


def test_components_that_are_built_of_their_values_alone_are_among_them():
    alone = {name for name, words in COMPONENTS if not runtime(composed(words)[name])}
    assert {"prompts", "data", "labels", "preflight", "alerts"} <= alone


def runtime(node: DictConfig) -> tuple[str, ...]:
    return signatures.signature(node._target_).runtime


@settings(max_examples=60, phases=[Phase.generate])
@given(st.sampled_from(COMPONENTS), st.data())
def test_what_the_check_accepts_is_built_or_refused_in_one_line(component, data):
    name, words = component
    cfg = composed(words).copy()
    if runtime(cfg[name]):
        return
    leaf = data.draw(st.sampled_from(sorted(key for key in cfg[name] if not key.startswith("_"))))
    OmegaConf.update(cfg, f"{name}.{leaf}", data.draw(st.sampled_from(ODD)), merge=False, force_add=True)
    if check.problems(cfg):
        return
    try:
        assert build(cfg[name]) is not None
    except UserError as reason:
        assert len(str(reason).splitlines()) == 1
