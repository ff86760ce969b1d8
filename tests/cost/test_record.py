"""What a run cost, against plain loops over planted records, and operations worked out by hand for two layers."""

import dataclasses
import itertools
import json

import pytest
from planted_costs import LENGTHS, WORK, pairs, plant_costs, rewarded, tree
from small_models import VOCABULARY, small_network, small_tokenizer

from dlma.cost import spent
from dlma.cost.spent import Costs
from dlma.judge_prompt import ABPrompt
from dlma.runs.costs import costs_of
from dlma.runs.folder import RunFolder

STEPS = [{"step": i} for i in (1, 2, 3, 4)]  # two epochs of two steps of two pairs
HUMAN = "dlma.pairs.human.HumanPairs"
SSO = "dlma.objective.self_steering.SelfSteering"
# A LLaMA of width 32 in two layers: q and o 32 x 32, k and v of two heads of eight, three matrices of the MLP.
BODY, HEAD, WIDTH = 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48), VOCABULARY * 32, 2 * 32


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    small_network("llama").save_pretrained(folder)
    small_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def cost(tmp_path, model):
    """The costs of a planted run."""
    numbers = itertools.count()

    def call(rows=None, *, steps=STEPS, dropped=None, reward_steps=None, **changes):
        config = tree(model, **changes)
        rows = rewarded(pairs()) if rows is None else rows
        left = dict(steps=steps, dropped=dropped, reward=reward_steps)
        folder = plant_costs(tmp_path / f"run-{next(numbers)}", config, rows, **left)
        return costs_of(RunFolder(folder))

    return call


def operations(tokens, targets, seen, factor=2):
    return factor * (BODY * tokens + HEAD * targets + 2 * WIDTH * seen)


def triangle(n):
    return n * (n + 1) // 2


def shared(context, *answers):
    """Operations and tokens of answers that share a context: every token attends to the context and its own answer."""
    seen = triangle(context) + sum(triangle(context + a) - triangle(context) for a in answers)
    tokens = context + sum(answers)
    return tokens, operations(tokens, sum(answers), seen)


def test_a_run_of_dlma_is_counted_by_a_plain_loop(cost):
    found = cost()
    sampled = scored = reference = trained = flops = 0
    for plain, positive, negative, first, second in LENGTHS:
        sampled += first + second
        for context, answer in ((positive, first), (negative, second)):
            flops += operations(context + answer, answer, triangle(context + answer))
        for context in (positive, negative):
            tokens, some = shared(context, first, second)
            scored, flops = scored + tokens, flops + some
        tokens, some = shared(plain, first, second)
        reference, flops = reference + tokens, flops + some
        trained, flops = trained + 2 * tokens, flops + 2 * 3 * some  # two epochs, forward and twice as much backward
    assert found == Costs(0, 0, sampled, scored, reference, trained, pytest.approx(flops))


def test_without_the_self_reward_nothing_is_scored_and_sft_trains_on_the_chosen_answers(cost):
    whole = cost()
    found = cost(pairs(), scorer={"_target_": "dlma.scorer.construction.Construction"})
    assert found.tokens_scored == 0
    assert found.flops == pytest.approx(whole.flops - sum(shared(c, *r[3:])[1] for r in LENGTHS for c in r[1:3]))
    sft = cost(pairs(), objective={"_target_": "dlma.objective.sft.SFT"})
    assert sft.tokens_trained == 2 * sum(row[0] + row[3 if i < 2 else 4] for i, row in enumerate(LENGTHS))


def test_steps_that_leave_pairs_out_train_on_fewer_tokens(cost):
    assert cost(steps=STEPS[:3]).tokens_trained == pytest.approx(0.75 * cost().tokens_trained)
    few = cost(steps=STEPS[:1], objective={"batch_pairs": 64})  # one step holds all there is
    assert few.tokens_trained == pytest.approx(0.5 * cost().tokens_trained)


def test_recomputation_is_counted_and_pairs_beyond_the_budget_are_not(cost):
    whole, again = cost(), cost(objective={"checkpointing": True})
    trained = sum(2 * shared(row[0], *row[3:])[1] for row in LENGTHS)
    assert again.flops - whole.flops == pytest.approx(trained)  # one more forward pass
    half = cost(steps=STEPS[:2], dropped={spent.BEYOND: 2})
    assert dataclasses.astuple(half) == pytest.approx([value / 2 for value in dataclasses.astuple(whole)])
    filtered = cost(steps=STEPS[:2], dropped={"|R| not above labels.min_margin": 2})
    assert (filtered.tokens_scored, filtered.tokens_sampled) == (whole.tokens_scored, whole.tokens_sampled)
    assert filtered.tokens_trained == half.tokens_trained


def test_the_reason_for_a_pair_beyond_the_budget_is_the_labels_own():
    from dlma import labels

    assert spent.BEYOND == labels.BEYOND


AB = dict(source="s", template="w9 {question} w10 {first} w11 {second} {instruction}", verdicts=[" w12", " w13"])
JUDGE = {"_target_": "dlma.scorer.judge.Judge", "seed": 0, "ab": {"_target_": "dlma.judge_prompt.ABPrompt", **AB}}
JUDGE["ab"]["instructions"] = ["w14 w15 w16"]


@pytest.mark.parametrize(("asked", "orders"), [(("verdict_first", "verdict_second"), 2), (("verdict_second",), 1)])
def test_a_judge_is_asked_in_every_order_and_reads_its_whole_question(cost, asked, orders):
    found = cost(pairs(**dict.fromkeys(asked, 0.3)), scorer=JUDGE)
    assert found.judge_calls == orders * len(LENGTHS)
    # <bos>, w9 and the question's two words, w10, w11, three of the instruction, both answers; then either verdict
    questions = [1 + 3 + 1 + 1 + 3 + first + second for *_, first, second in LENGTHS]
    assert found.tokens_scored == orders * sum(n + 2 for n in questions)
    plain = cost(pairs(), scorer={"_target_": "dlma.scorer.construction.Construction"})
    assert found.flops - plain.flops == pytest.approx(orders * sum(shared(n, 1, 1)[1] for n in questions))
    assert found.human_labels == 0


def test_the_counted_question_is_the_one_that_is_put(model):
    from dlma.judge_prompt import ABJudge, AnswerPair, question_lengths
    from dlma.model.load import ModelSpec

    prompt = ABPrompt(**AB, instructions=["w14", "w15 w16"])
    rows = [AnswerPair(f"p{i}", "w3", "w4 w5", "w6 " * (i + 1), "w7 " * 3) for i in range(5)]
    judge = ABJudge(ModelSpec("m", model, "float32").load(), prompt, seed=3)
    planned = judge.engine.plan([judge._group(row) for row in rows])
    begun, said = question_lengths(prompt, judge.model.tokenizer, rows, seed=3)
    assert [sum(n) for n in zip(begun, *said)] == [len(tree) for tree in planned]


@pytest.mark.parametrize(
    ("changes", "labels"),
    [
        ({"scorer": {"_target_": "dlma.scorer.annotator.Annotator"}}, 4),
        ({"pairs": {"_target_": HUMAN}}, 4),  # R is the margin, the order stays the human one
        ({"pairs": {"_target_": HUMAN}, "scorer": {"_target_": "dlma.scorer.random_labels.RandomLabels"}}, 0),
        ({"pairs": {"path": "mine.jsonl"}, "scorer": {"_target_": "dlma.scorer.construction.Construction"}}, 4),
        ({"scored": {"path": "mine.parquet"}}, 4),
        ({"scorer": {"_target_": "dlma.scorer.shorter.Shorter"}}, None),  # one's own: who knows
    ],
)
def test_human_labels_are_those_of_annotators_and_those_that_come_with_the_pairs(cost, changes, labels):
    found = cost(**changes)
    assert found.human_labels == labels
    came = any(changes.get(group, {}).get("path") for group in ("pairs", "scored")) or HUMAN in str(changes)
    assert found.tokens_sampled == (0 if came else sum(row[3] + row[4] for row in LENGTHS))


def test_ppo_samples_reads_and_trains_on_its_rollouts(cost):
    rule = {"_target_": "dlma.objective.ppo.PPO", "batch": 3, "epochs": 2}
    reward = {"_target_": "dlma.reward.BradleyTerry", "batch_pairs": 2}
    steps = [{"step": i, "length": n} for i, n in enumerate((4.0, 4.0, 6.0, 6.0), 1)]  # two rollouts of three answers
    found = cost(objective=rule, reward=reward, steps=steps, reward_steps=STEPS)
    alone = cost(objective={"_target_": "dlma.objective.none.NoTraining"})
    pairs_read = sum(row[0] + row[3] + row[4] for row in LENGTHS)
    asked, answered = 6 * 3.5, 3 * 4 + 3 * 6  # the mean prompt has 3.5 tokens
    read = asked + answered
    assert found.tokens_sampled - alone.tokens_sampled == answered
    assert found.tokens_scored - alone.tokens_scored == pytest.approx(2 * read + pairs_read)  # reward model, policy
    assert found.tokens_reference - alone.tokens_reference == pytest.approx(read)
    assert found.tokens_trained == pytest.approx(2 * read + 2 * pairs_read)
    seen = 3 * triangle_of(7.5) + 3 * triangle_of(9.5)
    one = operations(read, answered, seen)
    without_head = operations(read, 0, seen)
    rewarding = sum(shared(row[0], *row[3:])[1] - operations(0, row[3] + row[4], 0) for row in LENGTHS)
    wanted = one + without_head + one + one + 2 * 3 * one  # sampled, rewarded, read by policy and reference, trained on
    assert found.flops - alone.flops == pytest.approx(wanted + (2 * 3 + 1) * rewarding)


def triangle_of(n):
    return n * (n + 1) / 2


def test_distillation_has_a_teacher_that_reads_under_the_positive_prompt(cost):
    rows = [dataclasses.replace(row, chosen="positive") for row in pairs()]
    found = cost(rows, objective={"_target_": "dlma.objective.distill.ContextDistillation"})
    assert found.tokens_trained == 2 * sum(row[0] + row[3] for row in LENGTHS)
    assert found.tokens_reference == sum(row[0] + row[3] + row[4] + 2 * (row[1] + row[3]) for row in LENGTHS)


def test_what_is_not_known_is_not_guessed(cost, model):
    found = cost(objective={"_target_": "dlma.objective.mine.Mine"})
    assert (found.tokens_trained, found.flops) == (None, None)
    assert found.tokens_sampled == cost().tokens_sampled
    absent = cost(model={"path": "no/where"})
    assert absent.flops is None and absent.tokens_trained == cost().tokens_trained
    assert cost(iterations=2) is None  # the earlier rounds are not in the folder


def test_nothing_made_costs_nothing(cost):
    none = {"_target_": "dlma.pairs.sampled.NoPairs", "path": None}
    found = cost([], steps=[], pairs=none, objective={"_target_": "dlma.objective.none.NoTraining"})
    assert found == Costs(0, 0, 0, 0, 0, 0, 0)


def test_what_a_run_noted_down_is_what_is_read(tmp_path):
    wanted = Costs(1.0, 2.0, 3.0, 4.0, 5.0, 6.0, None)
    (tmp_path / "costs.json").write_text(json.dumps(dataclasses.asdict(wanted)))
    (tmp_path / "config.yaml").write_text("{}")
    assert costs_of(RunFolder(tmp_path)) == wanted
    assert costs_of(RunFolder(tmp_path / "empty")) is None


def test_an_answer_of_two_pairs_is_drawn_once_and_read_under_each_side_that_trains(cost):
    """SSO: pairs (a+, a-) and (a0, a+) of two prompts, trained on under q and p+, and under p-; two steps of two."""
    rows = [dataclasses.replace(row, id=f"x{i}", prompt_id=f"p{i // 2}") for i, row in enumerate(rewarded(pairs()))]
    objective = dict(_target_="dlma.objective.self_steering.SelfSteering", _work_=WORK[SSO])
    chosen = dict(_target_="dlma.pairs.self_steering.SelfSteeringPairs")
    found = cost(rows, steps=STEPS[:2], pairs=chosen, objective=objective)
    sampled = trained = flops = 0
    for n, (plain, positive, negative, first, second) in enumerate(LENGTHS):
        drawn = [(plain, first)] if n % 2 else [(positive, first), (negative, second)]
        for context, answer in drawn:
            sampled, flops = sampled + answer, flops + operations(context + answer, answer, triangle(context + answer))
        for context in [negative] if n % 2 else [plain, positive]:
            tokens, some = shared(context, first, second)
            trained, flops = trained + 2 * tokens, flops + 2 * 3 * some  # both prompts in each of two steps
        for context in (plain, positive, negative):
            flops += shared(context, first, second)[1]  # scored, and the reference
    assert (found.tokens_sampled, found.tokens_trained) == (sampled, trained)
    assert found.flops == pytest.approx(flops)


def test_of_several_pairs_whose_first_label_alone_is_read_people_are_asked_once_a_prompt(cost):
    rows = [dataclasses.replace(row, prompt_id=f"p{i // 2}") for i, row in enumerate(pairs())]
    several = dict(_target_="dlma.pairs.several.SeveralPairs", _work_={"kind": "sample", "contexts": ["plain"] * 2})
    people = dict(_target_="dlma.scorer.annotator.Annotator", _work_={"kind": "score", "labels": "human"})
    for labels, wanted in (("dlma.labels.SelfMade", 2), ("dlma.labels.Labels", 4)):
        found = cost(rows, pairs=several, scorer=people, labels={"_target_": labels, "_work_": WORK.get(labels, {})})
        assert found.human_labels == wanted
