"""A tiny Qwen3 made on the spot: random weights, a byte-level BPE tokenizer trained on a few lines, a chat template.

What it writes means nothing; architecture, tokenizer files and template are those of the real family, so that
vLLM loads and serves it as it would Qwen3-32B. Nothing is downloaded. Weights are spread widely enough that the
answer depends on the prompt, and the quotation mark is made likely enough that most strings end.
"""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

CONTEXT = 8192
SPREAD = 0.3  # standard deviation of the weights
SHARPNESS = 2.0  # of attention: at 1 it averages over so much that every prompt gets the same answer
CONSTANT, PREFERENCE = 3.0, 25.0
END = "<|im_end|>"
SPECIAL = ["<|endoftext|>", "<|im_start|>", END]
TEMPLATE = (
    "{%- for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{%- endif %}"
)
LINES = [
    'SUBJECT asks <P1> whether somebody is going to the store to buy fruit. {"summary": "SUBJECT asks for fruit."}',
    "Summarise what SUBJECT contributed to the thread, in the third person, without quotes, as JSON.",
    "The thread is about a compiler, a garden, a train to the coast, and who pays for the bread and the milk.",
]


def make(folder: Path, seed: int = 0) -> Path:
    """Write the model to `folder` (config, safetensors, tokenizer) and return it."""
    tokenizer = _tokenizer()
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=32, max_position_embeddings=CONTEXT,
        tie_word_embeddings=False, bos_token_id=None, pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id, dtype="float32", initializer_range=SPREAD,
    )  # fmt: skip
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(config)
    _shape(model, [number for word, number in tokenizer.get_vocab().items() if word.startswith('"')])
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@torch.no_grad()
def _shape(model: Qwen3ForCausalLM, likely: list[int]) -> None:
    """Sharpen attention, and add to the logits of `likely` tokens.

    Component 0 of the residual stream becomes a constant, which only their rows of the output layer read.
    """
    model.model.embed_tokens.weight[:, 0] = CONSTANT
    for layer in model.model.layers:
        layer.self_attn.q_norm.weight.fill_(SHARPNESS)
        layer.self_attn.o_proj.weight[0] = layer.mlp.down_proj.weight[0] = 0.0
    model.lm_head.weight[:, 0] = 0.0
    model.lm_head.weight[likely, 0] = PREFERENCE


def _tokenizer() -> PreTrainedTokenizerFast:
    model = Tokenizer(models.BPE())
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=SPECIAL, initial_alphabet=alphabet)
    model.train_from_iterator(LINES, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=model, eos_token=END, pad_token=SPECIAL[0], chat_template=TEMPLATE,
        model_max_length=CONTEXT, clean_up_tokenization_spaces=False,
    )  # fmt: skip
