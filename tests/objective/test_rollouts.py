"""Which prompts a rollout takes, and with which noise."""

from bandits import pair

from dlma.objective.rollouts import distinct, requests

PROMPTS = [pair(f"p{i}", 3, 4, context=[0, i]) for i in range(5)]


def asked(number, size, seed=0):
    return [(r.context_ids[1], r.key) for r in requests(PROMPTS, number, size, seed)]


def test_rollouts_go_through_all_prompts_before_one_comes_again():
    row = [prompt for number in range(5) for prompt, _ in asked(number, 4)]
    for turn in range(4):
        assert sorted(row[5 * turn : 5 * turn + 5]) == [0, 1, 2, 3, 4]


def test_a_rollout_larger_than_the_prompts_asks_some_again_with_other_noise():
    row = asked(0, 12)
    assert len(row) == 12 and len({key for _, key in row}) == 12


def test_the_noise_is_the_seeds_and_never_comes_twice():
    keys = [key for number in range(10) for _, key in asked(number, 4)]
    assert len(set(keys)) == 40
    assert asked(3, 4) == asked(3, 4)
    assert set(asked(3, 4)).isdisjoint(asked(3, 4, seed=1))


def test_a_prompt_with_several_pairs_counts_once():
    assert [p.prompt_id for p in distinct([*PROMPTS, *PROMPTS])] == [p.prompt_id for p in PROMPTS]
