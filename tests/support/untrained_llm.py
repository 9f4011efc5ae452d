"""An untrained decoder with a tokenizer, a sequence encoder, and a personalised decoder between them, as folders."""

from pathlib import Path

import polars as pl
import torch
from made_up_population import AXES, sequence_encoder
from transformers import Qwen3Config, Qwen3ForCausalLM

from training.personalised_inference import save
from training.personalised_model import PersonalisedDecoder, Shape
from training.sequence_inference import SequenceEncoder
from training.tokenizer import train_tokenizer
from user_embeddings_dagster.storage.manifest import finalise


def untrained_llm(root: Path, texts: pl.DataFrame, gate: float) -> dict[str, str]:
    """Folders "decoder", "personalised" and "sequence_encoder"; `texts` (chunk_id, text) give the words.

    gate 0: the personalised decoder is the bare one; the further from 0, the more a user changes what it says.
    """
    decoder, personalised, encoder = (root / name for name in ("decoder", "personalised", "sequence_encoder"))
    words = texts.with_columns(user_id=pl.col("chunk_id"), own=pl.col("text"))
    tokenizer = train_tokenizer(words, vocabulary=320, min_users=2)
    tokenizer.save_pretrained(decoder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "head_dim": 8}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}
    ends = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), 0)
    qwen = Qwen3ForCausalLM(Qwen3Config(vocab_size=len(tokenizer), tie_word_embeddings=True, **sizes, **heads, **ends))
    qwen.save_pretrained(decoder)
    sequence_encoder(encoder)
    model = PersonalisedDecoder(qwen, Shape(state_dimension=AXES, width=24, heads=2, tokens=4))
    block = model.injection.blocks[0]
    torch.nn.init.constant_(block.gates, gate)
    torch.nn.init.normal_(block.output.weight)
    personalised.mkdir()
    version = SequenceEncoder.load(encoder).version
    save(personalised, model, {}, preset="perceiver", rank=0, decoder=decoder, sequence_encoder=version)
    finalise(personalised)
    return {"decoder": str(decoder), "personalised": str(personalised), "sequence_encoder": str(encoder)}
