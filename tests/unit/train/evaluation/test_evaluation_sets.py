"""Many named evaluation sets, packed together, give what each question alone gives."""

import pytest
import torch

from remote_payload.train.data.packing import Document
from remote_payload.train.data.structured import Example
from remote_payload.train.distributed import World
from remote_payload.train.errors import InputError
from remote_payload.train.evaluation.evaluation_sets import EvaluationSets, encode, overall
from remote_payload.train.model.causal import CausalLoss
from remote_payload.train.model.causal_files import load_network
from tests.support.models.tiny_models import tiny_tokenizer

ALONE = World(0, 1, 0, torch.device("cpu"))
QUESTIONS = {
    "mayors": [
        Example("Who was the mayor?", " Brown."),
        Example("Who was the mayor of the town in 1901?", " The mayor."),
    ],
    "ships": [Example("The ship left", " London in the spring of 1823")],
}


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer(chat=False)


@pytest.fixture
def network(tiny_folder):
    return load_network(str(tiny_folder("olmo2")))


def sets(tokenizer):
    return {name: encode(examples, tokenizer, 64, False) for name, examples in QUESTIONS.items()}


def alone(network, document):
    """Loss, tokens and hits of one question's answer, by the whole logits of an unpadded, unpacked row."""
    ids = torch.tensor([document.ids])
    with torch.no_grad():
        logits = network(input_ids=ids).logits[0, :-1]
    counted = torch.tensor(document.learn[1:])
    targets = ids[0, 1:][counted]
    loss = torch.nn.functional.cross_entropy(logits[counted], targets, reduction="sum").item()
    return loss, len(targets), int((logits[counted].argmax(-1) == targets).sum())


def test_each_set_has_the_numbers_of_its_questions_alone(network, tokenizer):
    documents = sets(tokenizer)
    results = EvaluationSets(documents, 128).measure(CausalLoss(network), ALONE, torch.float32, 1)
    assert list(results) == ["mayors", "ships"]
    for name, result in results.items():
        losses, tokens, hits = zip(*(alone(network, document) for document in documents[name]), strict=True)
        assert result["loss"] == pytest.approx(sum(losses) / sum(tokens), rel=1e-4)
        assert result["token_accuracy"] == pytest.approx(sum(hits) / sum(tokens))


def test_an_answer_is_accurate_only_when_all_of_it_is(network, tokenizer):
    (asked,) = encode([Example("The ship left", " London")], tokenizer, 64, False)
    with torch.no_grad():
        best = network(input_ids=torch.tensor([asked.ids])).logits[0, -1].argmax().item()
    right = Document([*asked.ids, best], [False] * len(asked) + [True])
    wrong = Document([*asked.ids, best, best, 5, 6], [False] * len(asked) + [True] * 4)
    results = EvaluationSets({"right": [right], "mixed": [right, wrong]}, 64).measure(
        CausalLoss(network), ALONE, torch.float32, 1
    )
    assert results["right"]["accuracy"] == 1.0
    assert results["mixed"]["accuracy"] == 0.5
    assert overall(results)["accuracy"] == 0.75


def test_how_the_questions_are_cut_up_changes_nothing(network, tokenizer):
    documents = sets(tokenizer)
    whole = EvaluationSets(documents, 512).measure(CausalLoss(network), ALONE, torch.float32, 4)
    single = EvaluationSets(documents, 40).measure(CausalLoss(network), ALONE, torch.float32, 1)
    for name in documents:
        assert whole[name] == pytest.approx(single[name], rel=1e-4)


def test_only_the_completion_is_learnt_and_a_training_text_ends(tokenizer):
    (document,) = encode([Example("Who?", " Brown.")], tokenizer, 64, True)
    said = tokenizer(" Brown.")["input_ids"]
    assert document.ids == [*tokenizer("Who?")["input_ids"], *said, tokenizer.eos_token_id]
    assert document.counted == len(said) + 1


def test_a_question_too_long_keeps_its_answer(tokenizer):
    (document,) = encode([Example("word " * 50, " end")], tokenizer, 10, False)
    assert len(document) == 10 and tokenizer.decode(document.ids).endswith(" end")
    assert document.counted == len(tokenizer(" end")["input_ids"])


def test_a_question_with_nothing_before_its_answer_is_refused():
    with pytest.raises(InputError, match="evaluation set odd: a question without a prompt"):
        EvaluationSets({"odd": [Document([5], [True])]}, 10)
