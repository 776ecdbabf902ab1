"""Runs PyTorch (transformers, peft) and Hone alternately on the same weights and the same batch, and prints a table.

    cargo build --release -p hone-nn --example train_bench
    python compare/engine.py [work ...] [--rounds 7] [--seconds 4] [--threads 2]

A work is `train-0.7m`, `train-2.5m`, `train-50m`, `score-50m` or `lora-50m`; all by default. PyTorch runs eagerly and
compiled, each in a process that stays up, so that only the timed bursts alternate. Throughput ratios are medians over
rounds of the ratio within a round, against the faster PyTorch; memory is the peak of each process, against the
smaller PyTorch. Needs torch, transformers, peft and safetensors.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SIZES = {
    "0.7m": dict(d=128, layers=4, heads=4, kv=2, ffn=344, vocab=512, batch=64, length=96),
    "2.5m": dict(d=192, layers=6, heads=6, kv=2, ffn=512, vocab=1024, batch=64, length=96),
    "50m": dict(d=576, layers=12, heads=9, kv=3, ffn=1536, vocab=16384, batch=4, length=256),
}
WORKS = ["train-0.7m", "train-2.5m", "train-50m", "score-50m", "lora-50m"]
BENCH = Path(__file__).resolve().parent.parent / "target/release/examples/train_bench"


def save_model(size, folder):
    """A random Llama-style checkpoint, seeded."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=size["vocab"], hidden_size=size["d"], intermediate_size=size["ffn"],
        num_hidden_layers=size["layers"], num_attention_heads=size["heads"], num_key_value_heads=size["kv"],
        max_position_embeddings=1024, rms_norm_eps=1e-5, tie_word_embeddings=True)
    LlamaForCausalLM(config).save_pretrained(folder)


def torch_worker(work, folder, threads, compiled):
    """Answers each line (seconds) on stdin with one JSON line: seconds per step, losses, peak memory."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    import torch
    import torch.nn.functional as F
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(threads)
    kind, size = work.split("-")
    size = SIZES[size]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.config.use_cache = False
    b, t = torch.meshgrid(torch.arange(size["batch"]), torch.arange(size["length"]), indexing="ij")
    tokens = (b * 7919 + t * 104729 + b * t * 31) % size["vocab"]
    if kind == "lora":
        from peft import LoraConfig, get_peft_model

        projections = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        model = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules=projections))
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-3, weight_decay=0.01, fused=True)

    def loss(tokens):
        logits = model(tokens, use_cache=False).logits[:, :-1]
        return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), tokens[:, 1:].reshape(-1))

    def logps(tokens):
        logits = model(tokens, use_cache=False).logits[:, :-1]
        return logits.log_softmax(-1).gather(-1, tokens[:, 1:, None])

    function = logps if kind == "score" else loss
    if compiled:
        function = torch.compile(function)

    def step():
        if kind == "score":
            with torch.no_grad():
                return -function(tokens).mean().item()
        optimiser.zero_grad()
        value = function(tokens)
        value.backward()
        optimiser.step()
        return value.item()

    for line in sys.stdin:
        times, losses, end = [], [], time.perf_counter() + float(line)
        while not times or time.perf_counter() < end:
            start = time.perf_counter()
            losses.append(step())
            times.append(time.perf_counter() - start)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"seconds": times, "losses": losses, "peak_mib": peak}), flush=True)


class Worker:
    def __init__(self, command):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def burst(self, seconds):
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.process.args}: ended with {self.process.wait()}")
        return json.loads(line)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def compare(work, options):
    size = SIZES[work.split("-")[1]]
    tokens = size["batch"] * size["length"]
    with tempfile.TemporaryDirectory() as folder:
        save_model(size, folder)
        own = [sys.executable, __file__, "--threads", str(options.threads), "--worker", work, "--folder", folder]
        hone = [BENCH, work.split("-")[0], folder, size["batch"], size["length"], options.threads, "serve"]
        workers = {
            "eager": Worker(own),
            "compiled": Worker(own + ["--compiled"]),
            "hone": Worker([str(part) for part in hone]),
        }
        # The first step of each gives the same loss on the same weights; it also compiles and fills caches.
        first = {name: worker.burst(0) for name, worker in workers.items()}
        losses = {name: result["losses"][0] for name, result in first.items()}
        assert abs(losses["hone"] - losses["eager"]) < 1e-4 * losses["eager"], losses
        for worker in workers.values():
            worker.burst(1)
        rounds = [{name: worker.burst(options.seconds) for name, worker in workers.items()}
                  for _ in range(options.rounds)]
        for worker in workers.values():
            worker.close()
    median = lambda result: statistics.median(result["seconds"])
    rate = {name: [tokens / median(r[name]) for r in rounds] for name in workers}
    best = {name: max(tokens / min(r[name]["seconds"]) for r in rounds) for name in workers}
    rival = max(("eager", "compiled"), key=lambda name: statistics.median(rate[name]))
    ratio = statistics.median(h / p for h, p in zip(rate["hone"], rate[rival]))
    peak = {name: rounds[-1][name]["peak_mib"] for name in workers}
    smaller = min(peak["eager"], peak["compiled"])
    row = dict(work=work, rival=rival, ratio=ratio, memory=peak["hone"] / smaller, rounds=options.rounds,
               estimated_mib=rounds[-1]["hone"]["estimated_mib"], median={n: statistics.median(v) for n, v in rate.items()}, best=best, peak=peak, first_loss=losses)
    print(json.dumps(row), flush=True)
    return row


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("works", nargs="*", default=WORKS)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--worker")
    parser.add_argument("--folder")
    parser.add_argument("--compiled", action="store_true")
    options = parser.parse_args()
    if options.worker:
        return torch_worker(options.worker, options.folder, options.threads, options.compiled)
    rows = [compare(work, options) for work in options.works or WORKS]
    print("\n| work | PyTorch eager | PyTorch compiled | Hone | speed | peak PyTorch | peak Hone | memory |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        rates = " | ".join(f"{row['median'][n]:,.0f} (best {row['best'][n]:,.0f})" for n in ("eager", "compiled", "hone"))
        peak = min(row["peak"]["eager"], row["peak"]["compiled"])
        print(f"| {row['work']} | {rates} | {row['ratio']:.2f} × | {peak:,.0f} MiB | {row['peak']['hone']:,.0f} MiB "
              f"| {row['memory']:.2f} × |")
    print(f"\nTokens per second, medians over {options.rounds} alternating rounds of {options.seconds:g} s, "
          f"{options.threads} threads; speed is the median of the ratios to the faster PyTorch.")


if __name__ == "__main__":
    main()
