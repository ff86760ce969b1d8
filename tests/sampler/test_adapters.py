"""Adapters in running servers: loaded under a name of their own, unloaded at the end, refused in one line."""

import contextlib
from pathlib import Path

import pytest
from small_models import small_model
from small_server import SmallServer

from dlma.errors import UserError
from dlma.http_client import Client
from dlma.model.language import with_lora
from dlma.model.load import Lora
from dlma.sampler import adapters

CLIENT = Client(key_variable=None, needs_key=False, option="o", timeout=10.0)
PATIENCE = dict(tries=3, first_wait=0.01)


@pytest.fixture(scope="module")
def network():
    return small_model(vocabulary=12).network


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapter")
    with_lora(small_model(vocabulary=12).network, Lora(rank=4, alpha=8.0, targets="all-linear")).save_pretrained(folder)
    return folder


def loaded(servers, adapter):
    return adapters.loaded([server.url for server in servers], adapter, CLIENT, **PATIENCE)


def calls(server):
    return [what.removesuffix("_lora_adapter") for what, _ in server.changes]


@pytest.mark.parametrize("ends", ["well", "badly"])
def test_each_server_has_it_in_the_block_and_none_after_it(network, adapter, ends):
    with SmallServer(network, updating=True) as one, SmallServer(network, updating=True) as two:
        with contextlib.suppress(KeyboardInterrupt), loaded([one, two, one], adapter) as name:
            assert [*one.adapters] == [*two.adapters] == [name]
            if ends == "badly":
                raise KeyboardInterrupt
        assert not one.adapters and not two.adapters
        assert calls(one) == calls(two) == ["load", "unload"]


def test_two_runs_load_the_same_adapter_side_by_side(network, adapter):
    with SmallServer(network, updating=True) as server, loaded([server], adapter) as first:
        with loaded([server], adapter) as second:
            assert first != second and len(server.adapters) == 2
        assert [*server.adapters] == [first]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"updating": False}, 'HTTP 404.*"Not Found"'),
        ({"rank": 2}, "HTTP 500.*LoRA rank 4 is greater than max_lora_rank 2"),
        ({"rank": None}, "HTTP 500.*LoRA is not enabled"),
    ],
)
def test_a_server_that_does_not_load_it_is_told_at_once_and_the_others_let_it_go(network, adapter, options, words):
    with SmallServer(network, updating=True) as one, SmallServer(network, **{"updating": True, **options}) as two:
        told = rf"^sampler\.urls: the adapter .*{words}.*sampler\.policy=local$"
        with pytest.raises(UserError, match=told) as refusal, loaded([one, two], adapter):
            pytest.fail("it was loaded")
        assert "\n" not in str(refusal.value)
        assert not one.adapters and calls(one) == ["load", "unload"] and calls(two)[:1] in ([], ["load"])
        assert calls(two).count("load") <= 1  # a further try would bring the same


def test_a_folder_that_the_server_does_not_see_is_told(network):
    with SmallServer(network, updating=True) as server:
        missing = loaded([server], Path("/nowhere"))
        with pytest.raises(UserError, match="No adapter found for /nowhere"), missing:
            pytest.fail("it was loaded")


def test_one_that_stays_loaded_is_said_and_the_answers_are_kept(network, adapter, capsys):
    with SmallServer(network, updating=True, stays=True) as server, loaded([server], adapter) as name:
        pass
    assert f"{name} may stay loaded: HTTP 500" in capsys.readouterr().err


def test_what_has_no_such_call_is_found_before_there_is_an_adapter(network):
    with SmallServer(network, updating=True) as able, SmallServer(network) as unable:
        adapters.require(able.url, CLIENT)
        with pytest.raises(UserError, match=r"the policy will be an adapter, and .*VLLM_ALLOW_RUNTIME_LORA_UPDATING"):
            adapters.require(unable.url, CLIENT)
