#!/usr/bin/env python3
"""Pretrain the demo's base model: a tiny Qwen3 (about 2.6 M parameters, 5.3 MB in bf16) from openly licensed text.

Text, from Debian packages fetched with `apt-get download` and unpacked with `dpkg -x` (nothing is installed):

* `wordnet-base` (WordNet 3.0 licence, Princeton University): the glosses of data.{noun,verb,adj,adv}, as ChatML
  "Define: X" -> definition (main share), and as plain "lemma, lemma: definition" lines with example sentences;
* `r-cran-janeaustenr` (text in the public domain): the six novels. Its .rdb file is read here directly: each object is
  a 4-byte big-endian length, then zlib over R's XDR serialisation (R Internals, section 1.8).

Webster's 1913 dictionary, on which the demo fine-tunes, is not in this text. Everything is seeded and counted in steps,
never in seconds, so the schedule does not depend on the machine's speed (bits do, as always with threads).

    python pretrain.py --cache DIR --out DIR [--steps N]     # needs apt-get, dpkg, torch, transformers, tokenizers
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import struct
import subprocess
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn.functional import cross_entropy
from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM

PACKAGES = ("wordnet-base", "r-cran-janeaustenr")
WORDNET = "usr/share/wordnet"
AUSTEN = "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb"
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
VOCABULARY = 4096  # tokens, specials included
SEQUENCE = 128  # tokens per row
VALIDATION = 256  # WordNet definitions never trained on
TEMPLATE = (
    "{%- for m in messages %}{{- '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
PROMPT = "<|im_start|>user\nDefine: {}<|im_end|>\n<|im_start|>assistant\n"


def fetch(cache: Path) -> Path:
    """Unpack the Debian packages under `cache` once; return the root of the unpacked tree."""
    root = cache / "root"
    if not (root / AUSTEN).exists() or not (root / WORDNET).exists():
        cache.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", *PACKAGES], cwd=cache, check=True)
        for name in PACKAGES:
            (deb,) = sorted(cache.glob(f"{name}_*.deb"))[-1:]
            subprocess.run(["dpkg", "-x", str(deb), str(root)], check=True)
    return root


def synsets(root: Path) -> Iterator[tuple[list[str], str, list[str]]]:
    """Yield (lemmas, definition, example sentences) of each synset; file format: wndb(5WN)."""
    for part in ("noun", "verb", "adj", "adv"):
        for line in (root / WORDNET / f"data.{part}").read_text("utf-8").splitlines():
            if line.startswith("  "):  # the licence at the head of the file
                continue
            head, _, gloss = line.partition(" | ")
            fields = head.split()
            count = int(fields[3], 16)
            lemmas = [re.sub(r"\(\w+\)$", "", w).replace("_", " ") for w in fields[4 : 4 + 2 * count : 2]]
            definition = re.split(r';?\s*"', gloss.strip(), maxsplit=1)[0].strip(" ;")
            if definition:
                yield lemmas, definition, re.findall(r'"([^"]+)"', gloss)


def r_strings(data: bytes) -> list[str]:
    """Return all strings of one R object in XDR serialisation: CHARSXP flags, length, bytes (R Internals, 1.8)."""
    found, at = [], 0
    for match in re.finditer(rb"\x00[\x04\x00][\x00-\xff]\x09", data):
        if match.start() < at:
            continue
        (size,) = struct.unpack(">i", data[match.end() : match.end() + 4])
        if 0 <= size < 2000:
            at = match.end() + 4 + size
            found.append(data[match.end() + 4 : at].decode("utf-8", "replace"))
    return found


def novels(root: Path) -> Iterator[str]:
    """Yield the paragraphs of Jane Austen's novels."""
    rest = (root / AUSTEN).read_bytes()
    while len(rest) > 4:
        unzip = zlib.decompressobj()
        lines = r_strings(unzip.decompress(rest[4:]))
        rest = unzip.unused_data
        if len(lines) > 1000:
            yield from (" ".join(p.split()) for p in re.split(r"\n\s*\n", "\n".join(lines)) if len(p) > 60)


def chatml(lemma: str, definition: str) -> str:
    """One question and answer in Qwen's chat format."""
    return f"{PROMPT.format(lemma)}{definition}<|im_end|>\n"


def corpus(root: Path, rng: random.Random) -> tuple[list[str], list[str], list[tuple[str, str]]]:
    """Return (ChatML documents, plain documents, validation pairs), each shuffled."""
    entries = list(synsets(root))
    rng.shuffle(entries)
    held, kept = entries[:VALIDATION], entries[VALIDATION:]
    chat = [chatml(lemma, text) for lemmas, text, _ in kept for lemma in rng.sample(lemmas, min(2, len(lemmas)))]
    plain = [f"{', '.join(lemmas)}: {text}. {' '.join(e + '.' for e in ex)}<|endoftext|>" for lemmas, text, ex in kept]
    paragraphs = list(novels(root))
    blocks = ["\n".join(paragraphs[i : i + 4]) + "<|endoftext|>" for i in range(0, len(paragraphs), 4)]
    plain = rng.sample(plain, len(plain) // 4) + blocks
    rng.shuffle(chat)
    rng.shuffle(plain)
    return chat, plain, [(lemmas[0], text) for lemmas, text, _ in held]


def train_tokenizer(documents: list[str]) -> Tokenizer:
    """Byte-level BPE with Qwen's three ChatML specials as ids 0, 1, 2."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=list(SPECIALS), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator((re.sub(r"<\|\w+\|>", "\n", d) for d in documents), trainer)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, out: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and chat_template.jinja."""
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(out / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "model_max_length": 512,
    }
    (out / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    (out / "chat_template.jinja").write_text(TEMPLATE)


def pack(documents: list[list[int]]) -> torch.Tensor:
    """Fill rows of SEQUENCE + 1 tokens; each row starts at a document's start, its last document may be cut."""
    rows: list[list[int]] = []
    row: list[int] = []
    for ids in documents:
        while len(ids) > SEQUENCE + 1:  # a long paragraph: its own rows
            rows.append(ids[: SEQUENCE + 1])
            ids = ids[SEQUENCE + 1 :]
        row += ids
        if len(row) > SEQUENCE:
            rows.append(row[: SEQUENCE + 1])
            row = []
    return torch.tensor(rows, dtype=torch.long)


def build_model() -> Qwen3ForCausalLM:
    """Qwen3 of four layers, tied embeddings, about 2.65 M parameters."""
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=192,
        intermediate_size=640,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=2,
        pad_token_id=0,
    )
    model = Qwen3ForCausalLM(config)
    model.generation_config = GenerationConfig(eos_token_id=[2, 0], pad_token_id=0, do_sample=False)
    return model


def save_model(model: Qwen3ForCausalLM, out: Path) -> None:
    """Write a bf16 copy as safetensors."""
    copy = Qwen3ForCausalLM(model.config)
    copy.load_state_dict(model.state_dict())
    copy.generation_config = model.generation_config
    copy.to(torch.bfloat16).save_pretrained(out)


@torch.no_grad()
def answer_loss(model: Qwen3ForCausalLM, tokenizer: Tokenizer, pairs: list[tuple[str, str]]) -> float:
    """Mean nats per answer token (end token included) on the validation definitions."""
    total, count = 0.0, 0
    for lemma, text in pairs:
        prompt = tokenizer.encode(PROMPT.format(lemma)).ids
        ids = prompt + tokenizer.encode(f"{text}<|im_end|>").ids
        logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, len(prompt) - 1 : -1].float()
        total += float(cross_entropy(logits, torch.tensor(ids[len(prompt) :]), reduction="sum"))
        count += len(ids) - len(prompt)
    return total / count


def rate(step: int, steps: int, peak: float) -> float:
    """Linear warm-up over 3 % of the steps, then a cosine down to 2 % of the peak."""
    warm = max(1, steps * 3 // 100)
    if step < warm:
        return peak * (step + 1) / warm
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm))))


def optimizer_for(model: Qwen3ForCausalLM) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only."""
    wide = [p for p in model.parameters() if p.dim() > 1]
    narrow = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": wide, "weight_decay": 0.1}, {"params": narrow, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.95), eps=1e-8, foreach=True)


def train(model: Qwen3ForCausalLM, rows: torch.Tensor, args: argparse.Namespace) -> Iterator[tuple[int, float]]:
    """Yield (step, loss in nats per token) after each step; rows are reshuffled each epoch from the seed."""
    generator = torch.Generator().manual_seed(args.seed)
    optimizer = optimizer_for(model)
    order = torch.empty(0, dtype=torch.long)
    for step in range(min(args.stop, args.steps)):
        if len(order) < args.batch:
            order = torch.randperm(len(rows), generator=generator)
        batch, order = rows[order[: args.batch]], order[args.batch :]
        for group in optimizer.param_groups:
            group["lr"] = rate(step, args.steps, args.lr)
        with torch.autocast("cpu", torch.bfloat16):  # weights stay float32; 1.6 times faster with AVX-512 BF16
            logits = model(input_ids=batch[:, :-1], use_cache=False).logits
        loss = cross_entropy(logits.reshape(-1, VOCABULARY).float(), batch[:, 1:].reshape(-1))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        yield step + 1, float(loss)


def arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="folder for the Debian packages")
    parser.add_argument("--out", type=Path, required=True, help="folder for the model")
    parser.add_argument("--steps", type=int, default=4500, help="steps of the learning rate's schedule")
    parser.add_argument("--stop", type=int, default=3500, help="steps taken of it: the shipped weights stop here")
    parser.add_argument("--batch", type=int, default=16, help="rows of 128 tokens per step")
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=1913)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--save-every", type=int, default=500, help="steps between checkpoints of the weights")
    return parser.parse_args()


def main() -> None:
    """Fetch, tokenize, train, save."""
    args = arguments()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    chat, plain, held = corpus(fetch(args.cache), random.Random(args.seed))
    tokenizer = train_tokenizer(chat + plain)
    save_tokenizer(tokenizer, args.out)
    parts = [pack([e.ids for e in tokenizer.encode_batch(docs)]) for docs in (chat, plain)]
    rows = torch.cat(parts)
    model = build_model().train()
    size = sum(p.numel() for p in model.parameters())
    print(f"rows: ChatML {len(parts[0])}, plain {len(parts[1])}; parameters {size}", flush=True)
    start, mean, step = time.monotonic(), float("nan"), 0
    for step, loss in train(model, rows, args):
        mean = loss if step == 1 else 0.98 * mean + 0.02 * loss
        if step % 20 == 0:
            print(f"step {step} loss {loss:.3f} mean {mean:.3f} {time.monotonic() - start:.0f} s", flush=True)
        if step == 200 or step % args.save_every == 0 or step == min(args.stop, args.steps):
            save_model(model, args.out)
            print(f"step {step} saved; validation {answer_loss(model, tokenizer, held):.4f}", flush=True)
    print(f"done: {step} steps, {step * args.batch * SEQUENCE} tokens, seed {args.seed}, mean {mean:.4f}")


if __name__ == "__main__":
    main()
