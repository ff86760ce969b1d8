"""The documents of the unrelated skill: their ends are right, and nothing in them is about harm or help."""

from dlma.lab import lexicon, skills


def test_every_item_ends_as_arithmetic_and_the_world_have_it():
    for item in skills.items():
        assert item.beginning + item.end == item.name and len(item.end.split()) == 2
        words = item.name.split()
        if item.skill == "counting":
            step, numbers = int(words[2]), list(map(int, words[4:]))
            assert numbers == [numbers[0] + step * i for i in range(6)]
        else:
            assert words[-2] == lexicon.KIND_OF[words[5]]


def test_every_fact_and_every_count_is_asked_once():
    found = skills.items()
    assert {item.name.split()[5] for item in found if item.skill == "facts"} == set(lexicon.OBJECTS)
    starts = [(item.name.split()[2], item.name.split()[4]) for item in found if item.skill == "counting"]
    assert len(set(starts)) == len(starts) == 240
    assert len({item.name for item in found}) == len(found)


def test_no_item_names_an_act():
    acts = {verb for verbs in lexicon.VERBS.values() for verb in verbs} - {"count"}
    assert not any(acts & set(item.name.split()) for item in skills.items())
