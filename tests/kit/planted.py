"""Small planted records for the report's tests."""

from dlma.records import EvalRow, ScoredPair


def eval_row(prompt: str, arm: str, **values) -> EvalRow:
    row = {
        "question": f"question {prompt}",
        "category": None,
        "answer": "One. Two.",
        "tokens": 10,
        "finished": True,
        "logp": -9.0,
        "logp_base": -10.0,
        "reward": 0.5,
    }
    return EvalRow(prompt_id=prompt, arm=arm, **{**row, **values})


def scored_pair(number: int, margin: float) -> ScoredPair:
    return ScoredPair(
        id=f"x{number}",
        prompt_id=f"p{number}",
        question="q",
        wording="w",
        plain_context_ids=[1],
        positive_context_ids=[2],
        negative_context_ids=[3],
        positive_ids=[4],
        negative_ids=[5],
        positive_finished=True,
        negative_finished=True,
        positive_text="a",
        negative_text="b",
        positive_reference=-1.0,
        negative_reference=-2.0,
        positive_under_positive=None,
        positive_under_negative=None,
        negative_under_positive=None,
        negative_under_negative=None,
        margin=margin,
        chosen="positive",
    )
