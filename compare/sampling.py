"""Sampling beside `transformers`: the same shape, random weights, the same number of threads, alternately.

    cargo build --release -p hone-nn --example sample_bench
    python compare/sampling.py [--size tiny|mid] [--batch 64] [--pairs 5] [--threads 2]

Every sequence reads 32 tokens and says 64 at temperature 1. A pair is the median of a few calls on each side, one
after the other; the table gives the best of each side and the median over pairs of the ratio.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

PROMPT, NEW = 32, 64
SIZES = {
    "tiny": dict(d=192, layers=6, heads=6, kv=2, ffn=512, vocab=1024),
    "mid": dict(d=576, layers=12, heads=9, kv=3, ffn=1536, vocab=16384),
}


def transformers_model(size, attention):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=size["vocab"],
        hidden_size=size["d"],
        intermediate_size=size["ffn"],
        num_hidden_layers=size["layers"],
        num_attention_heads=size["heads"],
        num_key_value_heads=size["kv"],
        max_position_embeddings=1024,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        attn_implementation=attention,
    )
    return LlamaForCausalLM(config).eval()


def transformers_rate(model, vocab, batch, calls):
    """Median of new tokens per second."""
    import torch

    prompts = torch.randint(0, vocab, (batch, PROMPT))
    rates = []
    with torch.no_grad():
        for _ in range(calls):
            start = time.perf_counter()
            out = model.generate(
                prompts,
                attention_mask=torch.ones_like(prompts),
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                max_new_tokens=NEW,
                min_new_tokens=NEW,
                pad_token_id=0,
                eos_token_id=None,
            )
            rates.append(batch * NEW / (time.perf_counter() - start))
            assert out.shape == (batch, PROMPT + NEW)
    return statistics.median(rates)


def hone_rate(binary, size, batch, calls, threads):
    """Median of new tokens per second."""
    command = [binary, size, str(batch), str(calls), str(threads)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\n")
    return statistics.median(float(line.split()[1]) for line in lines if line)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--calls", type=int, default=3, help="calls per side and pair")
    parser.add_argument("--threads", type=int, default=2)
    target = Path(__file__).resolve().parent.parent / "target"
    parser.add_argument("--binary", default=str(target / "release/examples/sample_bench"))
    options = parser.parse_args()
    if not Path(options.binary).exists():
        sys.exit(f"{options.binary} is missing: cargo build --release -p hone-nn --example sample_bench")

    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    import torch

    torch.set_num_threads(options.threads)
    size = SIZES[options.size]
    peers = {name: transformers_model(size, name) for name in ("sdpa", "eager")}
    for model in peers.values():  # first calls compile and allocate
        transformers_rate(model, size["vocab"], options.batch, 1)

    ours, theirs = [], {name: [] for name in peers}
    for _ in range(options.pairs):
        ours.append(hone_rate(options.binary, options.size, options.batch, options.calls, options.threads))
        for name, model in peers.items():
            theirs[name].append(transformers_rate(model, size["vocab"], options.batch, options.calls))
    print(f"{options.size}, batch {options.batch}, {PROMPT} + {NEW} tokens, {options.threads} threads")
    print("| | best, tokens/s | median, tokens/s | Hone, median of ratios |")
    print("|---|---|---|---|")
    print(f"| Hone | {max(ours):.0f} | {statistics.median(ours):.0f} | |")
    for name, rates in theirs.items():
        ratio = statistics.median(a / b for a, b in zip(ours, rates))
        print(f"| transformers, {name} | {max(rates):.0f} | {statistics.median(rates):.0f} | {ratio:.2f} × |")


if __name__ == "__main__":
    main()
