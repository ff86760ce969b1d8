"""executor=ray: the bytes of executor=local, whatever is lost on the way; and what is refused in a line.

The cluster is one of this machine with two nodes, each with a daemon and an object store of its own.
"""

import importlib.util
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from catalogue import composed
from command_line import MODE
from source_tree import ROOT

from dlma import pipeline
from dlma.context import RunContext
from dlma.errors import UserError
from dlma.executor.ray import RayExecutor
from dlma.store.owned import ROWS
from dlma.store.stage import Stage

HAS_RAY = importlib.util.find_spec("ray") is not None
needs_ray = pytest.mark.skipif(not HAS_RAY, reason="ray is not installed: pip install 'dlma[ray]'")
SIZES = ("data.train=48", "data.validation=4", "data.test=4", "recipe.max_new_tokens=8", "recipe.epochs=1")
SIZES += ("trainer.shard_rows=2",)  # 24 shards of the pairs, and as many of their scores


@pytest.mark.parametrize(
    ("address", "reason"),
    [("ray://head:10001", "must be local, auto or HOST:PORT"), ("head", "must be"), ("head:port", "must be")],
)
def test_what_is_no_address_is_told_in_a_line(address, reason):
    with pytest.raises(UserError, match=reason) as told, RayExecutor(address=address).opened():
        raise AssertionError
    assert "\n" not in str(told.value)


def test_an_address_at_which_nothing_answers_is_told_in_a_line_before_anything_is_loaded():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(UserError, match="no Ray cluster answers") as told, RayExecutor(address=address).opened():
            raise AssertionError
    assert "\n" not in str(told.value) and "ray start --head" in str(told.value)


def test_without_ray_the_line_says_what_to_install(run_main, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "ray" else found(name, *more))
    ran = run_main(MODE, "executor=ray")
    assert (ran.code, ran.err.splitlines()) == (2, ["error: executor: needs ray: pip install 'dlma[ray]'"])


@needs_ray
@pytest.mark.slow
def test_several_processes_of_the_run_itself_are_refused(run_main):
    ran = run_main(*SIZES, "executor=ray", "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")
    line = "error: trainer.devices=2: the workers of executor=ray are handed their shards by one process, not by 2"
    assert (ran.code, ran.err.splitlines()) == (2, [line])


@pytest.fixture(scope="module")
def cluster():
    ray = pytest.importorskip("ray", reason="pip install 'dlma[ray]'")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        node = {"num_cpus": 1, "object_store_memory": 80 << 20}
        found = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
        found.add_node(**node)
        yield found
        ray.shutdown()
        found.shutdown()


def made(store: Path | str, *words: str) -> list[Stage]:
    """Pairs, scores and the trained policy's answers, in a store of that name."""
    cell = RunContext(composed((*SIZES, f"store.root={store}", *words)), Path("run"))
    with cell.executor.opened():
        contexts = pipeline.render(cell, pipeline.read_prompts(cell), "train")
        pairs = pipeline.make_pairs(cell, contexts, contexts)
        scored = pipeline.score(cell, pairs)
        policy = pipeline.train(cell, scored, None, None)
        return [pairs, scored, pipeline.answer(cell, contexts, policy, "aligned", "plain")]


def contents(stages: list[Stage]) -> list[bytes]:
    return [stage.read(ROWS) for stage in stages]


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    return contents(made(tmp_path_factory.mktemp("local") / "store"))


def as_shards_are_written(*deeds: tuple[int, Callable[[], object]]) -> threading.Thread:
    """Do each deed as soon as so many shards of the pairs are written, which are by no means all."""

    def work() -> None:
        for count, deed in deeds:
            while len(list(Path("store").glob("pairs/*.partial/scratch/rows.parquet/shard-*.parquet"))) < count:
                time.sleep(0.01)
            deed()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def kill_a_worker(node) -> None:
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    found = [one for one in raylet.children(recursive=True) if "ray::ShardWorker" in " ".join(one.cmdline())]
    found[0].kill()


@needs_ray
@pytest.mark.slow
@pytest.mark.timeout(1800)
class TestOnACluster:
    """In this order: the last one loses a node."""

    def test_what_two_nodes_make_has_the_bytes_of_a_local_run(self, cluster, local):
        stages = made("store", "executor=ray", f"executor.address={cluster.address}")
        assert contents(stages) == local
        nodes = {one["node"] for stage in stages for one in stage.notes["engine"]["workers"]}
        assert len(nodes) == 2
        assert nodes == {node.node_id for node in cluster.list_all_nodes()}

    def test_a_shard_that_loses_every_worker_ends_the_run_in_a_line(self, cluster):
        killer = as_shards_are_written((3, lambda: kill_a_worker(cluster.head_node)))
        with pytest.raises(UserError, match=r"^executor=ray: shard \d+ of pairs lost its worker 1 times") as told:
            made("store", "executor=ray", f"executor.address={cluster.address}", "executor.tries=1")
        killer.join(timeout=5)
        assert "\n" not in str(told.value)

    def test_a_worker_that_is_killed_and_then_a_node_that_is_gone_cost_nothing(self, cluster, local, capsys):
        (other,) = [node for node in cluster.list_all_nodes() if not node.head]
        deeds = lambda: kill_a_worker(cluster.head_node), lambda: cluster.remove_node(other, allow_graceful=False)
        end = as_shards_are_written((3, deeds[0]), (9, deeds[1]))
        stages = made("store", "executor=ray", f"executor.address={cluster.address}")
        end.join(timeout=60)
        assert contents(stages) == local
        assert capsys.readouterr().err.count("executor=ray: a worker") >= 2
        assert {one["node"] for one in stages[1].notes["engine"]["workers"]} == {cluster.head_node.node_id}
