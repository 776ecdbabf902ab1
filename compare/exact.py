"""Both ways between Hone and transformers / peft: what either saves, the other reads, with equal logits.

    cargo build -p hone-nn --example roundtrip
    python compare/exact.py [--hone target/debug/examples/roundtrip]

Needs torch, transformers, peft and safetensors. Reads the checkpoints under crates/hone-nn/tests/fixtures and draws
fresh ones. Prints one row per check and ends with status 1 if any fails.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import transformers as hf
from peft import PeftModel
from safetensors.torch import load_file

import fixtures
from fixtures import ROOT

LIMIT = 1e-4
ROWS = []


def row(name, direction, what, difference, limit=LIMIT):
    """`difference` is a number, or whatever says what went wrong."""
    number = isinstance(difference, float)
    ok = number and difference < limit
    ROWS.append(ok)
    shown = f"{difference:.1e}" if number else difference
    print(f"{'ok  ' if ok else 'FAIL'}  {name:16} {direction:22} {what:28} {shown}", flush=True)


def largest(a, b):
    return (a - b).abs().max().item() if a.shape == b.shape else f"shape {list(a.shape)}, needs {list(b.shape)}"


def hone(*arguments):
    subprocess.run([str(OPTIONS.hone), *map(str, arguments)], check=True)


def sequences(expected):
    return list(expected["tokens"].split(expected["lengths"].tolist()))


def load(folder):
    """A model through the class its config.json names, and the tensors that did not fit it."""
    config = hf.AutoConfig.from_pretrained(folder)
    cls = getattr(hf, config.architectures[0])
    model, info = cls.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True,
    )
    odd = {key: sorted(value) for key, value in info.items() if value}
    return model.eval(), odd


def outputs(model, texts):
    """Logits of every token, or of every sequence for a sequence classifier."""
    with torch.no_grad():
        out, seen = fixtures.run(model, texts, left=False)
    per_token = out.logits.shape[:2] == seen.shape
    return fixtures.ragged(out.logits, seen) if per_token else out.logits


def saved_by_hone(work):
    for name in fixtures.FIXTURES:
        folder = ROOT / name
        if name == "llama_bare" or not (folder / "config.json").exists():
            continue
        expected = load_file(folder / "expected.safetensors")
        needed = expected["logits"] if "logits" in expected else expected["scores"]
        for what, options in [("as it was", []), ("f32 in shards", ["f32", "3000"])]:
            target = work / f"{name}-{len(options)}"
            hone("model", folder, target, *options)
            model, odd = load(target)
            if name == "value_head":
                odd.get("unexpected_keys", []).clear()
                odd = {key: value for key, value in odd.items() if value}
            row(name, "hone -> transformers", what, odd or largest(outputs(model, sequences(expected)), needed))
        if name == "value_head":
            weights, before = load_file(work / f"{name}-0/model.safetensors"), load_file(folder / "model.safetensors")
            same = weights.keys() == before.keys() and all(torch.equal(weights[k], before[k]) for k in before)
            row(name, "hone -> transformers", "value head kept", 0.0 if same else "tensors differ")
    # The logits of what was saved in 16 bits are those of the rounded weights.
    for dtype, kind in [("bf16", torch.bfloat16), ("f16", torch.float16)]:
        hone("model", ROOT / "llama", work / dtype, dtype)
        texts = sequences(load_file(ROOT / "llama/expected.safetensors"))
        rounded = fixtures.reload(ROOT / "llama", "AutoModelForCausalLM")
        for parameter in rounded.parameters():  # not the rotary frequencies, which are never stored
            parameter.data = parameter.data.to(kind).float()
        saved, odd = load(work / dtype)
        difference = odd or largest(outputs(saved, texts), outputs(rounded, texts))
        row("llama", "hone -> transformers", f"saved in {dtype}", difference)


def adapters_saved_by_hone(work):
    for name, base in [("lora", "llama"), ("lora_rs", "qwen3"), ("lora_regex", "llama")]:
        expected = load_file(ROOT / name / "expected.safetensors")
        texts = sequences(expected)
        hone("adapter", ROOT / base, ROOT / name, work / name)
        plain = fixtures.reload(ROOT / base, "AutoModelForCausalLM")
        model = PeftModel.from_pretrained(plain, work / name).eval()
        row(name, "hone -> peft", "adapter", largest(outputs(model, texts), expected["logits"]))
        hone("merge", ROOT / base, ROOT / name, work / f"{name}-merged")
        merged, odd = load(work / f"{name}-merged")
        row(name, "hone -> transformers", "merged", odd or largest(outputs(merged, texts), expected["logits"]))
        ours, theirs = merged.state_dict(), model.merge_and_unload().state_dict()
        worst = max((ours[key] - theirs[key]).abs().max().item() for key in theirs)
        row(name, "hone -> peft", "merged weights", worst, 1e-6)


def made_by_hone(work):
    """Model and adapter drawn by Hone, loaded there, and the same logits on both sides."""
    hone("random", work / "random", 5)
    hone("fresh", work / "random", work / "fresh", 6)
    texts = [torch.randint(3, 96, (length,)) for length in (4, 30, 17)]
    model, odd = load(work / "random")
    row("random", "hone -> transformers", "log-probabilities", odd or compare(work, model, "random", "-", texts))
    model = PeftModel.from_pretrained(model, work / "fresh").eval()
    row("random", "hone -> peft", "log-probabilities", compare(work, model, "random", "fresh", texts))


def made_by_transformers(work):
    """Checkpoints that Hone's own tests have not seen, several seeds, each family."""
    kinds = {
        "Llama": dict(rope_parameters=fixtures.ROPE["llama3"], max_position_embeddings=256),
        "Mistral": dict(sliding_window=7),
        "Qwen2": dict(tie_word_embeddings=True),
        "Qwen3": dict(head_dim=8, use_sliding_window=True, sliding_window=5, max_window_layers=0),
        "SmolLM3": dict(no_rope_layers=[0, 1]),
    }
    for kind, changes in kinds.items():
        for seed in range(3):
            torch.manual_seed(1000 + seed)
            name = f"{kind}-{seed}"
            fixtures.build(kind, "ForCausalLM", **changes).save_pretrained(work / name)
            model, odd = load(work / name)
            texts = [torch.randint(3, fixtures.VOCAB, (length,)) for length in (2, 40, 23)]
            row(name, "transformers -> hone", "log-probabilities", odd or compare(work, model, name, "-", texts))


def compare(work, model, base, adapter, texts):
    """Largest difference between Hone's log-probabilities and the model's."""
    lines = "\n".join(" ".join(map(str, tokens.tolist())) for tokens in texts)
    (work / "tokens.txt").write_text(lines + "\n")
    adapter = adapter if adapter == "-" else work / adapter
    hone("logps", work / base, adapter, work / "tokens.txt", work / "logps.safetensors")
    ours, worst = load_file(work / "logps.safetensors"), 0.0
    for i, tokens in enumerate(texts):
        theirs = torch.log_softmax(outputs(model, [tokens]), -1)[:-1]
        difference = largest(ours[f"sequence.{i}"], theirs)
        if isinstance(difference, str):
            return difference
        worst = max(worst, difference)
    return worst


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    repository = Path(__file__).resolve().parent.parent
    target = Path(os.environ.get("CARGO_TARGET_DIR", repository / "target"))
    parser.add_argument("--hone", type=Path, default=target / "debug/examples/roundtrip")
    OPTIONS = parser.parse_args()
    torch.set_num_threads(2)
    torch.manual_seed(0)
    hf.utils.logging.disable_progress_bar()
    hf.utils.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as folder:
        saved_by_hone(Path(folder))
        adapters_saved_by_hone(Path(folder))
        made_by_hone(Path(folder))
        made_by_transformers(Path(folder))
    failed = ROWS.count(False)
    print(f"{len(ROWS)} checks, {failed} failed")
    sys.exit(failed > 0)
