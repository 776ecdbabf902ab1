"""A GRPO iteration and a DPO step of Hone beside TRL's trainers: same model, data, settings, threads, alternately.

    cargo build --release -p hone-methods --example trainers
    python compare/trainers.py [--runs 3] [--steps 4] [--threads 2] [--only grpo]

GRPO: 16 prompts, 8 samples each of up to 48 new tokens at temperature 1, the share of digits as reward, a penalty
against the start (k3, 0.04), one optimiser step. DPO: 32 pairs of up to 96 tokens, log-probabilities of the reference
found beforehand on both sides, one optimiser step. Both take AdamW on float32 weights of `assets/hone-tiny`.

A run is one process of each side, one after the other; its time is the median over its steps but the first. The table
gives the medians over runs, and the median over runs of the ratio. Memory is the peak of the process.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "assets/hone-tiny"
PROMPTS, GROUP, NEW = 16, 8, 48
PAIRS, LONGEST = 32, 96


def data(method, path):
    """Seeded sums: prompts that the built-in model knows, and pairs of a right and a wrong answer of some length."""
    import random

    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    rng = random.Random(1)
    rows = []
    while len(rows) < (PROMPTS if method == "grpo" else PAIRS):
        a, b = rng.randint(10, 99), rng.randint(10, 99)
        prompt = f"{a} + {b} ="
        if method == "grpo":
            rows.append({"prompt": prompt})
            continue
        room = LONGEST - len(tokenizer(prompt)["input_ids"]) - 1

        def answer(last):
            text = f" {last}"
            while True:
                longer = text + f"; {rng.randint(10, 99)} + {rng.randint(10, 99)}"
                if len(tokenizer(longer, add_special_tokens=False)["input_ids"]) > room:
                    return text
                text = longer
                if rng.random() < 0.04:
                    return text

        rows.append({"prompt": prompt, "chosen": answer(a + b), "rejected": answer(a + b + 1)})
    path.write_text(json.dumps(rows))


def status(name):
    """MiB of a line of /proc/self/status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"no {name} in /proc/self/status")


def digits(completions, **_):
    return [sum(c in "0123456789" for c in text) / max(len(text), 1) for text in completions]


def trl(method, path, steps, threads):
    """One process of the peer: prints its step times and its memory."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

    torch.set_num_threads(threads)
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    # Without a template both sides read the plain text.
    tokenizer.chat_template = None
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    rows = Dataset.from_list(json.loads(Path(path).read_text()))
    loaded, ends, lengths = status("VmRSS"), [], []

    class Ends(TrainerCallback):
        def on_step_end(self, *_, **__):
            ends.append(time.perf_counter())

        def on_log(self, *args, logs=None, **__):
            if logs and "completions/mean_length" in logs:
                lengths.append(logs["completions/mean_length"])

    common = dict(
        output_dir=tempfile.mkdtemp(),
        max_steps=steps,
        learning_rate=1e-6,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        max_grad_norm=1.0,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=True,
        dataloader_pin_memory=False,
        disable_tqdm=True,
        seed=1,
    )
    if method == "grpo":
        from trl import GRPOConfig, GRPOTrainer

        config = GRPOConfig(
            per_device_train_batch_size=PROMPTS * GROUP,
            num_generations=GROUP,
            max_completion_length=NEW,
            temperature=1.0,
            top_k=0,
            beta=0.04,
            **common,
        )
        trainer = GRPOTrainer(model, digits, args=config, train_dataset=rows, processing_class=tokenizer)
    else:
        from trl import DPOConfig, DPOTrainer

        config = DPOConfig(
            per_device_train_batch_size=PAIRS, beta=0.1, precompute_ref_log_probs=True, max_length=1024, **common
        )
        trainer = DPOTrainer(model, args=config, train_dataset=rows, processing_class=tokenizer)
    trainer.add_callback(Ends())
    sys.stdout.flush()
    trainer.train()
    seconds = [b - a for a, b in zip(ends, ends[1:])]
    print(json.dumps(dict(seconds=seconds, lengths=lengths, peak_mib=status("VmHWM"), loaded_mib=loaded)))


def last_json(command, threads):
    env = dict(os.environ, OMP_NUM_THREADS=str(threads), TRL_EXPERIMENTAL_SILENCE="1", HF_HUB_OFFLINE="1")
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    if done.returncode:
        sys.exit(f"{command}: {done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=["grpo", "dpo"])
    parser.add_argument("--binary", default=str(ROOT / "target/release/examples/trainers"))
    parser.add_argument("--peer", nargs=2, metavar=("METHOD", "DATA"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        return trl(*options.peer, options.steps, options.threads)
    if not Path(options.binary).exists():
        sys.exit(f"{options.binary} is missing: cargo build --release -p hone-methods --example trainers")
    print("| | Hone | TRL | ratio | Hone, peak | TRL, peak | share | answers, tokens |")
    print("|---|---|---|---|---|---|---|---|")
    for method in [options.only] if options.only else ["grpo", "dpo"]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "data.json"
            data(method, path)
            hone, peer = [], []
            steps = ["--steps", str(options.steps), "--threads", str(options.threads)]
            for _ in range(options.runs):
                own = [options.binary, method, str(MODEL), str(path), str(options.steps), str(options.threads)]
                hone.append(last_json(own, options.threads))
                other = [sys.executable, __file__, "--peer", method, str(path), *steps]
                peer.append(last_json(other, options.threads))
        middle = lambda runs: [statistics.median(run["seconds"]) for run in runs]
        ours, theirs = middle(hone), middle(peer)
        ratio = statistics.median(b / a for a, b in zip(ours, theirs))
        peaks = [statistics.median(run["peak_mib"] for run in runs) for runs in (hone, peer)]
        said = [
            statistics.mean(length for run in runs for length in run["lengths"]) if runs[0]["lengths"] else 0
            for runs in (hone, peer)
        ]
        print(
            f"| {method}, {len(ours)} runs of {options.steps - 1} steps | {statistics.median(ours):.3f} s "
            f"| {statistics.median(theirs):.3f} s | {ratio:.1f} × | {peaks[0]:.0f} MiB | {peaks[1]:.0f} MiB "
            f"| {peaks[0] / peaks[1]:.2f} | {said[0]:.1f} and {said[1]:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
