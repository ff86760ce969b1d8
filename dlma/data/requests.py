"""Short writing requests made by a grammar: a form, a topic, a detail. No file needed, and no harm in them.

No topic, form or detail speaks of a mood, so neither a joyful nor a gloomy answer is asked for. Each request has its
own pair of a topic and a form; a topic belongs to one split, so what the test part asks about is never trained on.
Forms and details are shared by all splits: the wording of a request is not new there, what it is about is.
"""

from __future__ import annotations

import itertools
import random

from dlma.data.split import split_of
from dlma.data.text import prompt_id
from dlma.errors import UserError
from dlma.ranges import InnerShare, PartialShare, Seed, Whole
from dlma.records import Account, Prompt, Turn, content_id

CATEGORY = "benign"  # a request that deserves an answer, as refusals are counted (docs/alerts.md)

ANY_FORM = (
    "Write a short paragraph about {topic}.",
    "Write a diary entry about {topic}.",
    "Write a letter to a cousin about {topic}.",
    "Write the opening of a story about {topic}.",
    "Write a short poem about {topic}.",
    "Write a short dialogue about {topic}.",
    "Write a message to a neighbour about {topic}.",
    "Write a short radio report about {topic}.",
)
FORMS = {
    "place": (*ANY_FORM, "Write a review of {topic}.", "Describe {topic} as a visitor sees it."),
    "thing": (*ANY_FORM, "Write a review of {topic}.", "Describe {topic} to somebody who has not seen it."),
    "activity": (*ANY_FORM, "Write a blog post on {topic}.", "Describe an afternoon of {topic}."),
}
DETAILS = (
    "",
    " Mention the weather.",
    " Set it in the morning.",
    " Set it on a Tuesday.",
    " Write in the first person.",
    " Mention a colour.",
    " Mention a sound.",
    " Name a person.",
)
TOPICS = {
    "place": (
        "a corner shop",
        "the bus station",
        "a public library",
        "a small harbour",
        "the town square",
        "a school kitchen",
        "a train platform",
        "an office on the third floor",
        "a village bakery",
        "the reading room of a museum",
        "a campsite near a lake",
        "a car park",
        "an indoor swimming pool",
        "a waiting room",
        "a street market",
        "a farm at the edge of town",
        "a footpath along a river",
        "a hotel corridor",
        "a post office",
        "the attic of a house",
        "a barber shop",
        "a language school",
        "a bicycle workshop",
        "a launderette",
        "a ferry terminal",
        "a greenhouse",
        "a sports hall",
        "a flat with two rooms",
        "a motorway service area",
        "a hill behind a village",
        "a university canteen",
        "a bridge over a canal",
        "a warehouse",
        "the back row of a cinema",
        "a kitchen garden",
        "a small airport",
        "a pottery studio",
        "a tram depot",
        "a lighthouse",
        "a quarry",
    ),
    "thing": (
        "a kitchen table",
        "an old bicycle",
        "a wool blanket",
        "a wooden chair",
        "a desk lamp",
        "a paper map",
        "a pair of boots",
        "a teapot",
        "a rain jacket",
        "a wall clock",
        "a notebook",
        "a backpack",
        "a set of keys",
        "a coffee machine",
        "a bookshelf",
        "an umbrella",
        "a radio",
        "a washing machine",
        "a pocket torch",
        "a suitcase",
        "a piano",
        "a loaf of bread",
        "a bowl of soup",
        "a garden hose",
        "a train ticket",
        "a pencil sharpener",
        "a digital camera",
        "a rug",
        "a window frame",
        "a pair of glasses",
        "a rowing boat",
        "a vegetable peeler",
        "a sewing machine",
        "a phone charger",
        "a ladder",
        "a board game",
        "a thermos flask",
        "a mattress",
        "a van",
        "a stapler",
    ),
    "activity": (
        "baking bread",
        "waiting for a train",
        "painting a fence",
        "learning to type",
        "moving to another flat",
        "walking to work",
        "cooking for eight people",
        "sorting old papers",
        "planting beans",
        "repairing a tap",
        "taking the night bus",
        "starting a new job",
        "knitting a scarf",
        "washing a car",
        "studying geography",
        "packing a suitcase",
        "rowing on a lake",
        "writing a shopping list",
        "choosing a new phone",
        "hanging up laundry",
        "setting up a tent",
        "making a bookshelf",
        "watching a rehearsal",
        "sweeping a yard",
        "riding a tram",
        "drawing a map",
        "learning to swim",
        "setting a table",
        "visiting an aunt",
        "measuring a room",
        "buying a used piano",
        "counting birds",
        "changing a tyre",
        "cleaning windows",
        "practising the drums",
        "ordering lunch",
        "keeping bees",
        "reading a newspaper",
        "folding paper",
        "joining a choir",
    ),
}


class Requests:
    """Requests of which no two share both topic and form; the splits share no topic.

    train, validation, test: how many of each
    validation_share, test_share: of the topics, by a topic's own hash
    seed: which topic and form are taken, and the detail of each
    """

    artificial = False  # whether a report must say that its world is made up: answers to these are any text

    on_bad_row = "error"  # the grammar makes no bad rows
    max_dropped = 0.0

    def __init__(
        self,
        *,
        train: Whole,
        validation: Whole,
        test: Whole,
        validation_share: PartialShare,
        test_share: InnerShare,
        seed: Seed,
    ) -> None:
        self.counts = {"train": train, "validation": validation, "test": test}
        self.shares = {"validation_share": validation_share, "test_share": test_share}
        self.seed = seed

    def fingerprint(self) -> str:
        """A hash of the grammar, which is all that the options leave open."""
        return content_id(repr((FORMS, DETAILS, TOPICS, CATEGORY)))

    def read(self) -> tuple[list[Prompt], Account]:
        """All splits in one list; nothing is ever dropped. raises: UserError where more are asked for than there are"""
        rows = [row for split, n in self.counts.items() for row in self._drawn(split, n)]
        return rows, Account(read=len(rows), kept=len(rows))

    def _drawn(self, split: str, n: int) -> list[Prompt]:
        found = [(form, topic) for form, topic in _pairs() if split_of(topic, **self.shares) == split]
        if n > len(found):
            raise UserError(
                f"data.{split}={n}: the grammar has {len(found)} {split} requests: ask for 0 to {len(found)}"
            )
        rng = random.Random(f"requests {split} {self.seed}")
        rng.shuffle(found)  # and not sampled: fewer requests are then the first of more
        return [_as_prompt(form.format(topic=topic) + rng.choice(DETAILS), split) for form, topic in found[:n]]


def _pairs() -> list[tuple[str, str]]:
    """Every form with every topic of its kind."""
    return [pair for kind, topics in TOPICS.items() for pair in itertools.product(FORMS[kind], topics)]


def _as_prompt(text: str, split: str) -> Prompt:
    turns = [Turn("user", text)]
    return Prompt(prompt_id(turns), turns, split, CATEGORY)
