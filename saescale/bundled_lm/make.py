"""Train the bundled language model: `python -m saescale.bundled_lm.make [OUT_FOLDER]`.

A one-million-parameter Llama on the Python standard library's source, under an hour on two CPU cores. Writes a
Hugging Face folder (tokenizer and weights, float32) and `training.json` with the measured losses. The corpus is that of
`data=python_stdlib`; its held-out documents are never seen here, neither by the tokenizer nor by the model.
"""

from __future__ import annotations

import json
import math
import platform
import sys
import time
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from saescale.activations.text import corpus_hash, is_held_out, python_stdlib

VOCAB, N_CTX, BOS = 1024, 256, "<s>"
HELD_OUT_FRACTION = 0.08
BATCH, PEAK_LR, WARMUP_STEPS, SEED = 16, 3e-3, 150, 0
# An identifier is one piece, so a concept of the code corpus is a token sequence that no merge crosses.
PIECES = r" ?[\p{L}_]+|\p{N}| ?[^\s\p{L}\p{N}_]+|\s+(?!\S)|\s+"


def train_tokenizer(texts: list[str], out: Path) -> PreTrainedTokenizerFast:
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tok.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tok.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=VOCAB, special_tokens=[BOS], initial_alphabet=alphabet))
    tok.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, tok.token_to_id(BOS))])
    fast = PreTrainedTokenizerFast(tokenizer_object=tok, bos_token=BOS, eos_token=BOS, model_max_length=N_CTX)
    fast.save_pretrained(out)
    return fast


def pack(tok: PreTrainedTokenizerFast, texts: list[str]) -> torch.Tensor:
    """Sequences of shape [sequence, N_CTX], each opened by BOS; a document's last, short piece is dropped."""
    rows = []
    for encoding in tok.backend_tokenizer.encode_batch(texts, add_special_tokens=False):
        ids, width = encoding.ids, N_CTX - 1
        rows += [[tok.bos_token_id, *ids[i:i + width]] for i in range(0, len(ids) - width + 1, width)]
    return torch.tensor(rows)


def build_model() -> LlamaForCausalLM:
    torch.manual_seed(SEED)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=VOCAB, hidden_size=128, intermediate_size=384, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=N_CTX, tie_word_embeddings=True, bos_token_id=0,
        eos_token_id=0, attn_implementation="sdpa"))


def learning_rate(step: int, steps: int) -> float:
    if step < WARMUP_STEPS:
        return PEAK_LR * (step + 1) / WARMUP_STEPS
    return PEAK_LR * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - WARMUP_STEPS) / (steps - WARMUP_STEPS))))


@torch.no_grad()
def loss_of(model: LlamaForCausalLM, rows: torch.Tensor) -> float:
    """Mean cross-entropy in nats per token."""
    model.eval()
    return sum(float(model(input_ids=b, labels=b).loss) * len(b) for b in rows.split(BATCH)) / len(rows)


def train(model: LlamaForCausalLM, rows: torch.Tensor, minutes: float, epochs: int) -> int:
    """AdamW with a cosine to the end of `epochs`, cut to what fits into `minutes`. Returns the steps made."""
    decay = [p for p in model.parameters() if p.dim() > 1]
    rest = [p for p in model.parameters() if p.dim() == 1]
    opt = torch.optim.AdamW([{"params": decay, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}],
                            betas=(0.9, 0.98))
    generator = torch.Generator().manual_seed(SEED)
    steps, start, order = epochs * (len(rows) // BATCH), time.time(), torch.empty(0, dtype=torch.long)
    model.train()
    for step in range(steps):
        if len(order) < BATCH:
            order = torch.randperm(len(rows), generator=generator)
        batch, order = rows[order[:BATCH]], order[BATCH:]
        for group in opt.param_groups:
            group["lr"] = learning_rate(step, steps)
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        opt.zero_grad()
        if step == 40:  # the cosine must end inside the time: size it to the speed just seen
            steps = min(steps, int(40 * 60 * minutes / (time.time() - start)))
        if step % 100 == 0:
            left = (steps - step) * (time.time() - start) / (step + 1)
            print(f"step {step}/{steps}  loss {float(loss):.3f}  {left / 60:.0f} min left", flush=True)
        if step + 1 >= steps:
            break
    return step + 1


def main(out: Path, minutes: float = 40.0, epochs: int = 8) -> None:
    documents = python_stdlib()
    seen = [d.text for d in documents if not is_held_out(d.name, HELD_OUT_FRACTION)]
    unseen = [d.text for d in documents if is_held_out(d.name, HELD_OUT_FRACTION)]
    tok = train_tokenizer(seen, out)
    train_rows, held_out_rows = pack(tok, seen), pack(tok, unseen)
    model = build_model()
    start = time.time()
    steps = train(model, train_rows, minutes, epochs)
    counts = torch.bincount(train_rows[:, 1:].flatten(), minlength=VOCAB).float() + 1
    unigram = -(counts / counts.sum()).log()
    report = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "loss_held_out_nats_per_token": round(loss_of(model, held_out_rows), 4),
        "loss_train_nats_per_token": round(loss_of(model, train_rows[:: max(1, len(train_rows) // 600)]), 4),
        "unigram_entropy_held_out_nats_per_token": round(float(unigram[held_out_rows[:, 1:]].mean()), 4),
        "train_tokens": train_rows.numel(), "held_out_tokens": held_out_rows.numel(), "steps": steps,
        "batch_sequences": BATCH, "n_ctx": N_CTX, "seed": SEED, "minutes": round((time.time() - start) / 60, 1),
        "corpus": "python_stdlib", "corpus_sha256": corpus_hash(documents), "held_out_fraction": HELD_OUT_FRACTION,
        "python": platform.python_version(), "torch": torch.__version__, "threads": torch.get_num_threads(),
    }
    model.save_pretrained(out)
    (out / "training.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "weights")
