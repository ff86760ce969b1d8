"""Rows with the columns of public data sets, with texts of our own, for tests."""

HARMS = ["Violence", "Privacy Violation", "Insulting Behavior"]


def pair(question, chosen="yes", rejected="no"):
    start = f"\n\nHuman: {question}\n\nAssistant:"
    return {"chosen": f"{start} {chosen}", "rejected": f"{start} {rejected}"}


def processed(*texts, chosen="yes", rejected="no"):
    """A row as PKU's version of the data holds it."""
    turns = [{"role": ("human", "assistant")[i % 2], "text": text} for i, text in enumerate(texts)]
    return {
        "context": turns,
        "chosen": {"role": "assistant", "text": chosen},
        "rejected": {"role": "assistant", "text": rejected},
    }


def older(prompt, safer=0, better=1, **changes):
    """A row with the columns of the release that the paper used."""
    row = {
        "prompt": prompt,
        "response_0": "Please do not.",
        "response_1": "Take a hammer.",
        "is_response_0_safe": True,
        "is_response_1_safe": False,
        "better_response_id": better,
        "safer_response_id": safer,
    }
    return {**row, **changes}


def present(prompt, **changes):
    """A row with the columns of the present release."""
    row = older(prompt)
    for i in (0, 1):
        row |= {
            f"response_{i}_source": "Alpaca-7B",
            f"response_{i}_harm_category": dict.fromkeys(HARMS, bool(i)),
            f"response_{i}_severity_level": 2 * i,
            f"response_{i}_sha256": "0" * 64,
        }
    return {**row, "prompt_source": "None", **changes}


NEVER_DOWNLOADED = {  # by preset: a row with the columns that the set's card or its authors' code names
    "or_bench": lambda text: {"prompt": text, "category": "deception"},
    "strong_reject": lambda text: {"prompt": text, "category": "Fraud", "source": "ours"},
    "sorry_bench": lambda text: {"question_id": 61, "category": "7", "turns": [text], "prompt_style": "base"},
    "beavertails": lambda text: {
        "prompt": text,
        "response": "no",
        "category": dict.fromkeys(HARMS, False),
        "is_safe": True,
    },
    "beavertails_evaluation": lambda text: {"prompt": text, "category": "privacy_violation", "category_id": 10},
    "hhh_alignment": lambda text: {"input": text, "targets": {"choices": ["yes", "no"], "labels": [1, 0]}},
    "reward_bench": lambda text: {
        **{"prompt": text, "chosen": "yes", "chosen_model": "a", "rejected": "no", "rejected_model": "b"},
        **{"subset": "xstest-should-respond", "id": 3},
    },
    "reward_bench_2": lambda text: {
        **{"id": "3", "prompt": text, "chosen": ["yes"], "rejected": ["no"], "num_correct": 1, "num_incorrect": 1},
        **{"total_completions": 2, "models": ["a", "b"], "subset": "Safety"},
    },
}
