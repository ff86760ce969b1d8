"""Rows as HH-RLHF and PKU-SafeRLHF hold them, in both formats of each, for tests."""

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
