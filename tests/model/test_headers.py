"""What the headers of a model's tensors allow an adapter to be, and what PEFT would leave out without a word."""

import pytest
from small_models import save_small

from dlma.errors import UserError
from dlma.model.headers import require_all, require_targets
from dlma.model.load import Lora, hf_model

TIED = {"model.embed_tokens.weight": (9, 4), "model.layers.0.q_proj.weight": (4, 3)}


def refusal(weights, rank, targets):
    with pytest.raises(UserError) as reason:
        require_targets(weights, rank, targets)
    return str(reason.value)


def test_a_head_without_a_tensor_of_its_own_is_a_target_with_the_embeddings_ranks():
    require_targets(TIED, 4, ["lm_head"])
    assert refusal(TIED, 5, ["lm_head"]) == "recipe.lora.rank: 5 is above the 4 that a target can have; lower it"
    require_targets(TIED, 3, r".*\.q_proj")


def test_weights_packed_into_one_column_set_no_limit_to_the_rank():
    packed = {"q_proj.weight": (8, 1), "k_proj.weight": (8, 1)}
    require_targets(packed, 64, ["q_proj"])
    assert "the 2 that" in refusal({**packed, "v_proj.weight": (2, 3)}, 3, ["q_proj", "v_proj"])


def test_a_named_target_that_is_adapted_nowhere_is_refused():
    require_all(["q_proj", "0.k_proj"], ["model.layers.0.q_proj", "model.layers.0.k_proj"])
    with pytest.raises(UserError, match=r"recipe\.lora\.targets: the model has no proj; take it out"):
        require_all(["q_proj", "proj"], ["model.layers.0.q_proj"])


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ["llama", "gpt_neox"])  # the files of the second call the head otherwise
def test_a_head_is_adapted_by_its_name_in_the_model_whatever_files_call_it(kind, tied, tmp_path):
    options = dict(revision="main", dtype="float32", bits=None)
    folder, attention = save_small(tmp_path / "own", kind, tied=tied), {"llama": "q_proj"}.get(kind, "query_key_value")
    model = hf_model(path=str(folder), lora=Lora(2, 4, [attention, "lm_head"]), **options).load()
    assert any(name.endswith("lm_head") for name in model.network.base_model.targeted_module_names)
    with pytest.raises(UserError, match="the model has no embed_out"):
        hf_model(path=str(folder), lora=Lora(2, 4, [attention, "embed_out"]), **options).load()
