"""A LanguageModel as a `dspy.LM`: whatever DSPy asks goes through our client, cache and budget.

DSPy 3.4 takes its language models as engines (`complete(lm15.Request) -> lm15.Response`); litellm, DSPy's own
cache, its retries and its history take no part.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from user_embeddings_dagster.language_models.dspy_settings import quiet_dspy
from user_embeddings_dagster.language_models.protocol import Completion, Failure, LanguageModel, Message, Request

if TYPE_CHECKING:
    import dspy
    from dspy import lm15

FREE_TEXT: dict[str, Any] = {
    "type": "object",
    "properties": {"text": {"type": "string"}},
    "required": ["text"],
    "additionalProperties": False,
}
"""Schema of an answer that DSPy wants as free text: our protocol knows only JSON."""
FREE_TEXT_HINT = "Answer with a JSON object whose one field `text` holds the whole answer."


def dspy_lm(
    model: LanguageModel,
    *,
    owner: str,
    program: str,
    max_tokens: int = 2048,
    temperature: float = 0.0,
    seed: int = 0,
) -> "dspy.LM":
    """`model` for DSPy; `owner` and `program` as in Request. Any number of threads may call it.

    Each call is one Request, with the JSON schema that DSPy's adapter gives, or {"text": …} around free text.
    A Failure raises one of DSPy's errors; ModelRefused and BudgetSpent come out as they are inside `own_errors`.
    """
    quiet_dspy()
    import dspy

    lm = dspy.LM(
        "language_model",  # DSPy guesses from names such as "o3": ours stays inside
        engine=Engine(model, owner, program),
        max_tokens=max_tokens,
        temperature=temperature,
        seed=seed,
        cache=False,
        num_retries=0,
    )
    lm.update_history = _forget
    return lm


@contextmanager
def own_errors() -> Iterator[None]:
    """Raises what DSPy wraps as unexpected: a refused model or a spent budget is no failure of one prediction."""
    from dspy.utils.exceptions import LMUnexpectedError

    try:
        yield
    except LMUnexpectedError as error:
        raise error.__cause__ or error from None


class Engine:
    """DSPy's engine interface over a LanguageModel."""

    supports_response_schema = True
    supported_params = frozenset({"response_format", "max_tokens", "temperature", "seed"})

    def __init__(self, model: LanguageModel, owner: str, program: str) -> None:
        self._model, self._owner, self._program = model, owner, program

    def complete(self, request: "lm15.Request") -> "lm15.Response":
        """One call. Raises lm15's errors for what has no answer or cannot be asked (media, tools)."""
        ours = self._request(request)
        (answer,) = self._model.complete([ours])
        if isinstance(answer, Failure):
            raise _error(answer)
        return _response(answer, request.model, free_text=ours.schema == FREE_TEXT)

    def _request(self, request: "lm15.Request") -> Request:
        config = request.config
        schema = _schema(config.response_format)
        system = [text for text in (_text(request.system), FREE_TEXT_HINT if schema == FREE_TEXT else "") if text]
        messages = [Message("system", "\n\n".join(system))] if system else []
        for message in request.messages:
            role = "system" if message.role == "developer" else message.role
            messages.append(Message(role, _text(message.parts)))
        if request.tools or any(message.role == "tool" for message in messages):
            raise _unsupported("tools")
        return Request(
            tuple(messages),
            schema,
            self._owner,
            self._program,
            max_tokens=config.max_tokens or 2048,
            temperature=config.temperature or 0.0,
            seed=config.seed or 0,
        )


def _forget(entry: Any) -> None:
    """DSPy's histories, of the model, of the calling modules and of the process, would keep every prompt."""


def _schema(response_format: Any) -> dict[str, Any]:
    """Schema of the answer: the adapter's, any object in JSON mode, else FREE_TEXT."""
    if response_format is None:
        return FREE_TEXT
    return dict(response_format.get("schema") or {"type": "object"})


def _text(content: Any) -> str:
    """The text of a system prompt (string, parts or None) or of a message's parts."""
    if content is None or isinstance(content, str):
        return content or ""
    if any(part.type != "text" for part in content):
        raise _unsupported("media")
    return "".join(part.text for part in content)


def _response(answer: Completion, name: str, *, free_text: bool) -> "lm15.Response":
    from dspy import lm15

    text = answer.value["text"] if free_text else json.dumps(answer.value, ensure_ascii=False)
    usage = lm15.Usage(input_tokens=answer.usage.prompt_tokens, output_tokens=answer.usage.completion_tokens)
    return lm15.Response(answer.request_id, name, lm15.Message.assistant(text), "stop", usage)


def _unsupported(feature: str) -> Exception:
    from dspy import lm15

    return lm15.UnsupportedFeatureError(f"{feature} cannot be asked of a LanguageModel", feature=feature)


def _error(failure: Failure) -> Exception:
    from dspy import lm15

    kinds = {
        "timeout": lm15.TimeoutError,
        "rate_limited": lm15.RateLimitError,
        "server_error": lm15.ServerError,
        "connection_lost": lm15.TransportError,
        "bad_request": lm15.InvalidRequestError,
    }
    return kinds.get(failure.reason, lm15.ProviderError)(
        f"{failure.reason}: {failure.detail}", provider_code=failure.reason
    )
