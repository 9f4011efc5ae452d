"""Sampled answers of a personalised decoder: their likelihoods are those that they were drawn with."""

import pytest
import torch
from exported_root import decoder

from training import sampling
from training.decoder import load_decoder
from training.personalised_model import PersonalisedDecoder, Shape
from training.sampling import answer_log_likelihoods, answer_states, line_ends, questions_ids, sampled, written

PROMPTS = ["balan dorvis kelan mopek tunam rigol?\nSUBJECT:", "who\n", "solan nam\nSUBJECT:"]
TEMPERATURE = 0.8
INJECTIONS = ("cross_attention", "soft_prompt")


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory):
    model, tokenizer = load_decoder(decoder(tmp_path_factory.mktemp("decoder")))
    for weight in model.parameters():  # so that it matters what is attended to, and where
        if weight.ndim >= 2:
            weight.data.mul_(8)
    return model, tokenizer


@torch.no_grad()
def personalised(bare, injection: str) -> PersonalisedDecoder:
    torch.manual_seed(1)
    model = PersonalisedDecoder(bare, Shape(6, width=16, tokens=3, heads=2, injection=injection)).eval()
    for name, weight in model.injection.named_parameters():
        if name.endswith("gates"):
            torch.nn.init.normal_(weight, std=0.7)
    model.add_voice()
    for weight in model.speaking.parameters():  # so that it matters which of the two speaks
        weight.mul_(1.5)
    return model


def drawn(model, tokenizer, monkeypatch):
    """User tokens, prompts and mask, sampled answers, and the log-likelihoods [B, n] that generation drew them with."""
    users, logits, generate = torch.randn(3, 3, 16), [], model.decoder.generate

    def kept(**options):
        output = generate(**options, return_dict_in_generate=True, output_scores=True)
        logits.append(torch.stack(output.scores, dim=1))
        return output.sequences

    ids, mask = questions_ids(tokenizer, PROMPTS, 48)
    with monkeypatch.context() as patched:
        patched.setattr(model.decoder, "generate", kept)
        answers = sampled(model, users, ids, mask, new_tokens=7, temperature=TEMPERATURE, ends=line_ends(tokenizer))
    own = logits[0].float().log_softmax(-1).gather(2, answers[:, :, None]).squeeze(2)
    return users, ids, mask, answers, own


@pytest.mark.parametrize("injection", INJECTIONS)
@torch.no_grad()
def test_likelihoods_are_generations_own_with_padding_on_the_left(loaded, injection: str, monkeypatch) -> None:
    """C44: the policy gradient is of the distribution that answered."""
    bare, tokenizer = loaded
    model = personalised(bare, injection)
    users, ids, mask, answers, own = drawn(model, tokenizer, monkeypatch)
    assert mask.sum(1).unique().numel() > 1, "prompts of different lengths"
    counted = written(answers, line_ends(tokenizer))
    found = answer_log_likelihoods(model, users, ids, mask, answers, TEMPERATURE)
    torch.testing.assert_close(found[counted], own[counted], atol=2e-3, rtol=1e-3)
    for row in range(3):
        seen = mask[row].bool()
        alone = answer_log_likelihoods(
            model, users[row : row + 1], ids[row : row + 1, seen], mask[row : row + 1, seen], answers[row : row + 1],
            TEMPERATURE,
        )  # fmt: skip
        torch.testing.assert_close(found[row][counted[row]], alone[0][counted[row]], atol=2e-3, rtol=1e-3)
    others = answer_log_likelihoods(model, users.roll(1, 0), ids, mask, answers, TEMPERATURE)
    assert (others - found)[counted].abs().max() > 0.05, "written for somebody else they are others"


@torch.no_grad()
def test_settings_that_a_decoder_brings_along_change_no_answer(loaded, monkeypatch) -> None:
    """Its generation_config.json is for another use: what is drawn is what the gradient is of."""
    bare, tokenizer = loaded
    model = personalised(bare, "cross_attention")
    said = []
    for settings in ({}, {"repetition_penalty": 1.5, "no_repeat_ngram_size": 1, "min_p": 0.5, "typical_p": 0.2}):
        with monkeypatch.context() as patched:
            for name, value in settings.items():
                patched.setattr(bare.generation_config, name, value)
            torch.manual_seed(0)
            *_, answers, _ = drawn(model, tokenizer, monkeypatch)
        said.append(answers)
    torch.testing.assert_close(*said)


@torch.no_grad()
def test_what_lies_below_a_late_injection_is_read_once_for_every_user(loaded, monkeypatch) -> None:
    bare, tokenizer = loaded
    model = personalised(bare, "cross_attention")
    assert model.is_late
    users, ids, mask, answers, _ = drawn(model, tokenizer, monkeypatch)
    states, counted = answer_states(model, ids, mask, answers), written(answers, line_ends(tokenizer))
    for those in (users, users.roll(1, 0)):
        whole = answer_log_likelihoods(model, those, ids, mask, answers, TEMPERATURE)
        found = answer_log_likelihoods(model, those, ids, mask, answers, TEMPERATURE, states)
        torch.testing.assert_close(found[counted], whole[counted], atol=1e-4, rtol=1e-4)
    assert answer_states(personalised(bare, "soft_prompt"), ids, mask, answers) is None


@torch.no_grad()
def test_padding_that_takes_positions_is_noticed(loaded, monkeypatch) -> None:
    """Broken twin: between a soft prompt and the question lies the padding."""
    bare, tokenizer = loaded
    model = personalised(bare, "soft_prompt")
    users, ids, mask, answers, own = drawn(model, tokenizer, monkeypatch)
    monkeypatch.setattr(sampling, "_places", lambda seen: torch.arange(seen.shape[1]).expand(seen.shape))
    found = answer_log_likelihoods(model, users, ids, mask, answers, TEMPERATURE)
    counted = written(answers, line_ends(tokenizer))
    assert (found - own)[counted].abs().max() > 0.02


@torch.no_grad()
def test_nobodys_answers_are_the_bare_decoders(loaded) -> None:
    bare, tokenizer = loaded
    ids, mask = questions_ids(tokenizer, PROMPTS, 48)
    options = {"new_tokens": 5, "temperature": TEMPERATURE, "ends": line_ends(tokenizer)}
    torch.manual_seed(4)
    nobody = sampled(personalised(bare, "cross_attention"), None, ids, mask, **options)
    torch.manual_seed(4)
    zeros = sampled(personalised(bare, "cross_attention"), torch.zeros(3, 3, 16), ids, mask, **options)
    assert torch.equal(nobody, zeros), "without anything known of a user the bare decoder speaks"


def test_an_answer_is_written_up_to_its_end() -> None:
    answers = torch.tensor([[5, 0, 0, 0], [5, 6, 7, 8], [0, 3, 0, 4], [5, 9, 0, 0]])
    ends = torch.tensor([0, 9])
    assert written(answers, ends).int().tolist() == [[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 0, 0]]


@torch.no_grad()
def test_an_answer_is_one_line(loaded) -> None:
    """The judge reads one line: what came after it would be charged for nothing."""
    bare, tokenizer = loaded
    ends = line_ends(tokenizer)
    assert ends[0] == tokenizer.eos_token_id
    assert all("\n" in text for text in tokenizer.batch_decode([[token] for token in ends[1:].tolist()]))
    ids, mask = questions_ids(tokenizer, PROMPTS * 8, 48)
    torch.manual_seed(1)
    # So hot that any token may come, a line's end among them.
    options = {"new_tokens": 40, "temperature": 50.0, "ends": ends}
    answers = sampled(personalised(bare, "cross_attention"), None, ids, mask, **options)
    counted = written(answers, ends)
    assert (counted.sum(1) < answers.shape[1]).any(), "none has ended: the test shows nothing"
    for answer, mine in zip(answers, counted, strict=True):
        text = tokenizer.decode(answer[mine], skip_special_tokens=True)
        assert "\n" not in text.rstrip("\n")
        assert (answer[~mine] == ends[0]).all()


def test_questions_are_padded_on_the_left_and_keep_their_end(loaded) -> None:
    _, tokenizer = loaded
    ids, mask = questions_ids(tokenizer, PROMPTS, longest=6)
    assert ids.shape == mask.shape
    for row, prompt in enumerate(PROMPTS):
        kept = tokenizer(prompt)["input_ids"][-6:]
        assert ids[row][mask[row].bool()].tolist() == [tokenizer.bos_token_id, *kept]
        assert mask[row].tolist() == sorted(mask[row].tolist())
