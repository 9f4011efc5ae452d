"""FLOPs of a prompt by formula, for comparison with those that are counted.

Kaplan et al. 2020 (arXiv:2001.08361, section 2.1): two operations for each weight and token; and attention, in which a
causal one sees (L + 1) / 2 positions on average.
"""

from typing import Any

from training.injection import SoftPrompt, layers_of
from training.personalised_model import PersonalisedDecoder, Shape


def bare_flops(decoder: Any, tokens: int) -> int:
    """Of a decoder that reads `tokens` and gives the logits after the last."""
    config = decoder.config
    weights = sum(w.numel() for w in layers_of(decoder).parameters() if w.ndim > 1)
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    seen = tokens * (tokens + 1) // 2
    attention = 4 * seen * config.num_attention_heads * width * config.num_hidden_layers
    return 2 * weights * tokens + attention + 2 * config.hidden_size * config.vocab_size


def embedding_flops(model: PersonalisedDecoder, states: int, tokens: int) -> int:
    """Of the Perceiver over `states`, and of the decoder that reads `tokens` with its user tokens."""
    shape, hidden = model.shape, model.decoder.config.hidden_size
    n, width = shape.tokens, shape.width
    perceiver = _perceiver(shape, states) + _perceiver(shape, 1)  # of the user, and of nobody
    perceiver += 2 * n * width**2 + 2 * shape.state_dimension * width  # the map of what it finds, the linear reading
    if isinstance(model.injection, SoftPrompt):
        return perceiver + 2 * n * width * hidden + bare_flops(model.decoder, n + tokens)
    block = 4 * tokens * hidden * width + 4 * n * width**2 + 4 * tokens * n * width
    return perceiver + 2 * n * width**2 + len(model.injection.blocks) * block + bare_flops(model.decoder, tokens)


def _perceiver(shape: Shape, states: int) -> int:
    n, width = shape.tokens, shape.width
    memory = states + n
    layer = 4 * n * width**2 + 4 * memory * width**2 + 4 * n * memory * width + 16 * n * width**2
    return 2 * states * shape.state_dimension * width + shape.perceiver_layers * layer
