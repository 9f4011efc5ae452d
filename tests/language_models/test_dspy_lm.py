"""DSPy asks through our protocol: one Request a call, its schema, our errors, and nothing kept."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import dspy
import pytest
from dspy.utils.exceptions import LMProviderError, LMRateLimitError, LMTimeoutError, LMUnsupportedFeatureError

from user_embeddings_dagster.language_models.budget import Budgeted
from user_embeddings_dagster.language_models.dspy_lm import FREE_TEXT, dspy_lm, own_errors
from user_embeddings_dagster.language_models.protocol import (
    Answer,
    BudgetSpent,
    Completion,
    Failure,
    Message,
    ModelRefused,
    Reason,
    Request,
    Usage,
)

OWNER = "0" * 32


class Scripted:
    """Answers each request by `answer(request)` and remembers what it was asked."""

    name = "o3"  # a name from which DSPy would conclude that temperatures are not allowed

    def __init__(self, answer: Callable[[Request], Any]) -> None:
        self.answer, self.asked, self.lock = answer, [], threading.Lock()

    def complete(self, requests: Iterable[Request]) -> Iterator[Answer]:
        for request in requests:
            with self.lock:
                self.asked.append(request)
            value = self.answer(request)
            if isinstance(value, Failure | Completion):
                yield value
            else:
                yield Completion(request.id, value, Usage(1, 10, 0, 5, 0.01))


class Opinion(dspy.Signature):
    """Read the mood."""

    text: str = dspy.InputField()
    mood: Literal["glad", "sad"] = dspy.OutputField()
    reasons: list[str] = dspy.OutputField()


def read(model: Any, text: str = "hello", adapter: dspy.Adapter | None = None, **options: Any) -> dspy.Prediction:
    lm = dspy_lm(model, owner=OWNER, program="opinion/1", **options)
    with dspy.context(lm=lm, adapter=adapter or dspy.JSONAdapter()):
        return dspy.Predict(Opinion)(text=text)


def test_a_call_is_one_request_with_the_adapters_schema() -> None:
    """C24: what DSPy asks becomes one Request with JSON schema, owner and program; the answer comes back typed."""
    model = Scripted(lambda request: {"mood": "glad", "reasons": ["ünïcode", "two"]})
    prediction = read(model, "a canary", max_tokens=99, temperature=0.7, seed=5)
    assert (prediction.mood, prediction.reasons) == ("glad", ["ünïcode", "two"])
    (request,) = model.asked
    assert (request.owner, request.program) == (OWNER, "opinion/1")
    assert (request.max_tokens, request.temperature, request.seed) == (99, 0.7, 5)
    assert [message.role for message in request.messages] == ["system", "user"]
    assert "Read the mood." in request.messages[0].content
    assert "a canary" in request.messages[1].content
    assert request.schema["properties"]["mood"]["enum"] == ["glad", "sad"]
    assert request.schema["required"] == ["mood", "reasons"]
    assert request.schema["additionalProperties"] is False


def test_free_text_travels_in_one_field() -> None:
    """A reflection model answers free text; our protocol carries JSON: {"text": …}, and the prompt says so."""
    model = Scripted(lambda request: {"text": 'Line one\n"quoted"'})
    lm = dspy_lm(model, owner=OWNER, program="reflection/1")
    assert lm("Say something.") == ['Line one\n"quoted"']
    (request,) = model.asked
    assert request.schema == FREE_TEXT
    assert request.messages[0].role == "system"
    assert "`text`" in request.messages[0].content
    assert request.messages[1:] == (Message("user", "Say something."),)


def test_adapters_without_response_format_work_too() -> None:
    text = "[[ ## mood ## ]]\nsad\n\n[[ ## reasons ## ]]\n[]\n\n[[ ## completed ## ]]"
    prediction = read(Scripted(lambda request: {"text": text}), adapter=dspy.ChatAdapter())
    assert (prediction.mood, prediction.reasons) == ("sad", [])


@pytest.mark.parametrize(
    ("reason", "error"),
    [("timeout", LMTimeoutError), ("rate_limited", LMRateLimitError), ("truncated", LMProviderError)],
)
def test_failures_are_dspys_errors_and_asked_once(reason: Reason, error: type[Exception]) -> None:
    """Our client has retried already: DSPy must not do it again."""
    model = Scripted(lambda request: Failure(request.id, reason, "after 8 attempts", Usage(), 8))
    with pytest.raises(error, match=f"{reason}: after 8 attempts"):
        read(model)
    assert len(model.asked) == 1


def test_a_refused_model_and_a_spent_budget_come_out_as_they_are() -> None:
    """C24: DSPy wraps every error; `own_errors` hands out the two that end a run."""
    good = Scripted(lambda request: {"mood": "glad", "reasons": []})
    budgeted = Budgeted(good, max_calls=1)
    read(budgeted)
    with pytest.raises(BudgetSpent, match="1 calls"), own_errors():
        read(budgeted)
    assert len(good.asked) == 1

    def refuse(request: Request) -> Any:
        raise ModelRefused("HTTP 401")

    with pytest.raises(ModelRefused, match="HTTP 401"), own_errors():
        read(Scripted(refuse))
    with pytest.raises(LMTimeoutError), own_errors():
        read(Scripted(lambda request: Failure(request.id, "timeout", "", Usage())))


def test_nothing_is_kept() -> None:
    """C27: neither DSPy's cache nor its histories hold a prompt: the same question is asked again."""
    from dspy.clients import base_lm

    model = Scripted(lambda request: {"mood": "glad", "reasons": []})
    lm = dspy_lm(model, owner=OWNER, program="opinion/1")
    predict = dspy.Predict(Opinion)
    with dspy.context(lm=lm, adapter=dspy.JSONAdapter()):
        predict(text="canary-53c1")
        predict(text="canary-53c1")
    assert len(model.asked) == 2
    assert lm.history == predict.history == []
    assert "canary-53c1" not in repr(base_lm.GLOBAL_HISTORY)


def test_threads() -> None:
    """Optimisers evaluate in threads: every thread gets the answer to its own question."""

    def echo(request: Request) -> Any:
        return {"mood": "sad", "reasons": [request.messages[-1].content.split("<<")[1].split(">>")[0]]}

    model = Scripted(echo)
    with dspy.context(lm=dspy_lm(model, owner=OWNER, program="opinion/1"), adapter=dspy.JSONAdapter()):
        predict = dspy.Predict(Opinion)
        questions = [(predict, dspy.Example(text=f"<<{i}>>").with_inputs("text")) for i in range(64)]
        answers = dspy.Parallel(num_threads=8, disable_progress_bar=True)(questions)
    assert [answer.reasons for answer in answers] == [[str(i)] for i in range(64)]
    assert len(model.asked) == 64


def test_what_the_protocol_cannot_carry_is_refused() -> None:
    model = Scripted(lambda request: {"text": ""})
    lm = dspy_lm(model, owner=OWNER, program="p/1")
    image = {"type": "image_url", "image_url": {"url": "https://example.org/x.png"}}
    with pytest.raises(LMUnsupportedFeatureError, match="media"):
        lm.forward(messages=[{"role": "user", "content": [image]}])
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    with pytest.raises(LMUnsupportedFeatureError, match="tools"):
        lm.forward(messages=[{"role": "user", "content": "x"}], tools=[tool])
    assert model.asked == []


def test_litellm_is_never_imported() -> None:
    """litellm calls the network when it is imported: the bridge works without."""
    code = (
        "import sys; from tests_dspy_lm import read, Scripted;"
        "read(Scripted(lambda request: {'mood': 'glad', 'reasons': []})); print('litellm' in sys.modules)"
    )
    loader = (
        f"import importlib.util, sys; spec = importlib.util.spec_from_file_location('tests_dspy_lm', {__file__!r});"
        "module = importlib.util.module_from_spec(spec); sys.modules['tests_dspy_lm'] = module;"
        "spec.loader.exec_module(module);"
    )
    done = subprocess.run([sys.executable, "-c", loader + code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
