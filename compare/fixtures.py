"""Writes the tiny checkpoints under crates/hone-nn/tests/fixtures and what transformers and peft say about them.

    python compare/fixtures.py [name ...]

Needs torch, transformers, peft and safetensors. Everything is seeded by the fixture's name, so a second run writes
the same files. Beside each checkpoint lies `expected.safetensors`:

    tokens [N], lengths [B], mask [N]   a ragged batch laid end to end, and which tokens are targets
    logits [N, V], hidden.<i> [N, D]    of every token, every layer (0 is the embedding)
    scores [N, K] or [B, K]             of a value or classification head; labels, the targets of its loss
    loss, grad.<tensor>                 mean cross-entropy over the targets (plus the head's part) and its gradient
    greedy [B, 20]                      greedy continuations
    curve.<k>.tokens, curve.<k>.lengths, curve.losses [50]   batches and losses of an AdamW run

Logits are computed three ways, right-padded, left-padded and step by step with a cache, and must agree.
"""

import json
import shutil
import sys
import zlib
from pathlib import Path

import torch
import torch.nn.functional as F
import transformers as hf
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parent.parent / "crates/hone-nn/tests/fixtures"
VOCAB, PAD = 64, 0
LENGTHS = [5, 14, 9]
SIZES = dict(
    vocab_size=VOCAB, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.3, rms_norm_eps=1e-5,
    bos_token_id=1, eos_token_id=2, pad_token_id=PAD, tie_word_embeddings=False,
)


def seeded(name):
    torch.manual_seed(zlib.crc32(name.encode()))


def build(kind, cls, **changes):
    """A model with weights far from their usual start, so that a mistake anywhere shows in the logits."""
    config = getattr(hf, f"{kind}Config")(**{**SIZES, **changes})
    config._attn_implementation = "eager"
    model = getattr(hf, f"{kind}{cls}")(config).float().eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.dim() == 1:
                noise = 0.3 * torch.randn_like(value)
                value.copy_(1 + noise if "norm" in name else noise)
    return model


def batch():
    return [torch.randint(3, VOCAB, (length,)) for length in LENGTHS]


def padded(sequences, left):
    longest = max(map(len, sequences))
    ids = torch.full((len(sequences), longest), PAD)
    seen = torch.zeros_like(ids)
    for row, tokens in enumerate(sequences):
        place = slice(longest - len(tokens), longest) if left else slice(0, len(tokens))
        ids[row, place], seen[row, place] = tokens, 1
    return dict(input_ids=ids, attention_mask=seen, position_ids=(seen.cumsum(1) - 1).clamp(min=0))


def ragged(values, seen):
    return torch.cat([row[keep.bool()] for row, keep in zip(values, seen)])


def run(model, sequences, left):
    """The model's output, and its per-token part laid end to end."""
    inputs = padded(sequences, left)
    out = model(**inputs, output_hidden_states=True)
    return out, inputs["attention_mask"]


def close(a, b, what, tolerance=2e-5):
    worst = (a - b).abs().max().item()
    assert worst < tolerance, f"{what}: {worst}"


def token_masks(sequences):
    """Which tokens are targets: never the first of a sequence, and not every other one."""
    masks = []
    for tokens in sequences:
        mask = torch.rand(len(tokens)) < 0.7
        mask[0], mask[-1] = False, True
        masks.append(mask)
    return masks


def cross_entropy(logits, sequences, masks, reduction="mean"):
    """Over the masked tokens, each predicted from the token before it. `logits` is laid end to end."""
    losses, start = [], 0
    for tokens, mask in zip(sequences, masks):
        rows = logits[start : start + len(tokens) - 1]
        losses.append(F.cross_entropy(rows, tokens[1:], reduction="none")[mask[1:]])
        start += len(tokens)
    losses = torch.cat(losses)
    return losses.mean() if reduction == "mean" else losses


def greedy(model, sequences):
    inputs = padded(sequences, left=True)
    inputs.pop("position_ids")
    out = model.generate(
        **inputs, max_new_tokens=20, do_sample=False, eos_token_id=None, pad_token_id=PAD,
        output_logits=True, return_dict_in_generate=True,
    )
    best = torch.stack(out.logits).topk(2, dim=-1).values
    margin = (best[..., 0] - best[..., 1]).min().item()
    assert margin > 1e-4, f"greedy choice is too close to call: {margin}"
    return out.sequences[:, inputs["input_ids"].shape[1] :]


def stepwise(model, tokens):
    cache, rows = hf.DynamicCache(config=model.config), []
    for position, token in enumerate(tokens):
        out = model(
            input_ids=token.view(1, 1), past_key_values=cache, use_cache=True,
            position_ids=torch.tensor([[position]]),
        )
        cache = out.past_key_values
        rows.append(out.logits[0])
    return torch.cat(rows)


def gradients(loss, model):
    model.zero_grad()
    loss.backward()
    return {f"grad.{name}": value.grad.clone() for name, value in model.named_parameters() if value.requires_grad}


def describe(model, sequences, masks):
    """Expected values of a language model."""
    with torch.no_grad():
        right, seen = run(model, sequences, left=False)
        left, left_seen = run(model, sequences, left=True)
        logits = ragged(right.logits, seen)
        close(logits, ragged(left.logits, left_seen), "left padding")
        close(logits, torch.cat([stepwise(model, tokens) for tokens in sequences]), "cache")
        hidden = {f"hidden.{i}": ragged(h, seen) for i, h in enumerate(right.hidden_states)}
        continuation = greedy(model, sequences)
    out, seen = run(model, sequences, left=False)
    loss = cross_entropy(ragged(out.logits, seen), sequences, masks)
    return {**inputs(sequences, masks), "logits": logits, **hidden, "loss": loss.detach(), "greedy": continuation,
            **gradients(loss, model)}


def inputs(sequences, masks):
    return {
        "tokens": torch.cat(sequences), "lengths": torch.tensor([len(s) for s in sequences]),
        "mask": torch.cat(masks).long(),
    }


def store(folder, expected):
    save_file({name: value.detach().contiguous().clone() for name, value in expected.items()},
              folder / "expected.safetensors")


def reload(folder, cls):
    """What a reader of the folder gets: the stored number format, computed in f32."""
    model = getattr(hf, cls).from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return model.eval()


def fresh_folder(name):
    folder = ROOT / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def language(name, kind, dtype=torch.float32, shard="1GB", **changes):
    seeded(name)
    folder = fresh_folder(name)
    build(kind, "ForCausalLM", **changes).to(dtype).save_pretrained(folder, max_shard_size=shard)
    model = reload(folder, "AutoModelForCausalLM")
    sequences = batch()
    store(folder, describe(model, sequences, token_masks(sequences)))
    return folder


def curve(folder):
    """50 steps of torch.optim.AdamW over four batches in turn, every parameter decayed."""
    seeded("curve")
    model = reload(folder, "AutoModelForCausalLM")
    batches = [batch() for _ in range(4)]
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    losses = []
    for step in range(50):
        sequences = batches[step % 4]
        out, seen = run(model, sequences, left=False)
        everything = [torch.ones(len(s), dtype=torch.bool) for s in sequences]
        loss = cross_entropy(ragged(out.logits, seen), sequences, everything)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1, losses
    expected = load_file(folder / "expected.safetensors")
    for k, sequences in enumerate(batches):
        expected[f"curve.{k}.tokens"] = torch.cat(sequences)
        expected[f"curve.{k}.lengths"] = torch.tensor([len(s) for s in sequences])
    expected["curve.losses"] = torch.tensor(losses)
    store(folder, expected)


def old_spelling(folder):
    """Rewrites config.json as transformers 4 wrote it."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = {"type": rope.pop("rope_type"), **rope}
    config["torch_dtype"] = config.pop("dtype")
    path.write_text(json.dumps(config, indent=2) + "\n")
    sequences = batch()
    before = load_file(folder / "expected.safetensors")
    sequences = list(before["tokens"].split(before["lengths"].tolist()))
    out, seen = run(reload(folder, "AutoModelForCausalLM"), sequences, left=False)
    close(ragged(out.logits, seen), before["logits"], "old spelling")


def bare(name):
    """A decoder without head, tensors without the `model.` prefix."""
    seeded(name)
    folder = fresh_folder(name)
    build("Llama", "Model").save_pretrained(folder)
    model = reload(folder, "AutoModel")
    sequences = batch()
    with torch.no_grad():
        out, seen = run(model, sequences, left=False)
    hidden = {f"hidden.{i}": ragged(h, seen) for i, h in enumerate(out.hidden_states)}
    store(folder, {**inputs(sequences, token_masks(sequences)), **hidden})


def sequence_head(name):
    seeded(name)
    folder = fresh_folder(name)
    build("Qwen2", "ForSequenceClassification", num_labels=3).save_pretrained(folder)
    model = reload(folder, "AutoModelForSequenceClassification")
    sequences, labels = batch(), torch.tensor([2, 0, 1])
    with torch.no_grad():
        left, _ = run(model, sequences, left=True)
    out, seen = run(model, sequences, left=False)
    close(out.logits, left.logits, "left padding")
    loss = F.cross_entropy(out.logits, labels)
    hidden = {f"hidden.{i}": ragged(h, seen) for i, h in enumerate(out.hidden_states)}
    store(folder, {**inputs(sequences, token_masks(sequences)), **hidden, "scores": out.logits, "labels": labels,
                   "loss": loss.detach(), **gradients(loss, model)})


def token_head(name):
    seeded(name)
    folder = fresh_folder(name)
    build("Llama", "ForTokenClassification", num_labels=4).save_pretrained(folder)
    model = reload(folder, "AutoModelForTokenClassification")
    sequences = batch()
    with torch.no_grad():
        left, left_seen = run(model, sequences, left=True)
    out, seen = run(model, sequences, left=False)
    scores = ragged(out.logits, seen)
    close(scores, ragged(left.logits, left_seen), "left padding")
    labels = torch.randint(0, 4, (len(scores),))
    loss = F.cross_entropy(scores, labels)
    hidden = {f"hidden.{i}": ragged(h, seen) for i, h in enumerate(out.hidden_states)}
    store(folder, {**inputs(sequences, token_masks(sequences)), **hidden, "scores": scores, "labels": labels,
                   "loss": loss.detach(), **gradients(loss, model)})


def value_head(name):
    """As TRL stores a language model with a value head: one linear map of the last hidden state beside the model."""
    seeded(name)
    folder = fresh_folder(name)
    build("Llama", "ForCausalLM", tie_word_embeddings=True).save_pretrained(folder)
    head = torch.nn.Linear(SIZES["hidden_size"], 1)
    weights = load_file(folder / "model.safetensors")
    weights |= {"v_head.summary.weight": head.weight.detach(), "v_head.summary.bias": head.bias.detach()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    model = reload(folder, "AutoModelForCausalLM")
    sequences = batch()
    masks = token_masks(sequences)
    out, seen = run(model, sequences, left=False)
    scores = head(ragged(out.hidden_states[-1], seen))
    labels = torch.randn(len(scores))
    loss = cross_entropy(ragged(out.logits, seen), sequences, masks) + 0.5 * (scores[:, 0] - labels).square().mean()
    expected = describe(model, sequences, masks)
    expected |= {"scores": scores, "labels": labels, "loss": loss.detach(), **gradients(loss, model)}
    expected |= {f"grad.v_head.summary.{kind}": getattr(head, kind).grad for kind in ["weight", "bias"]}
    store(folder, expected)


def adapter(name, base, **settings):
    seeded(name)
    folder = fresh_folder(name)
    model = get_peft_model(reload(ROOT / base, "AutoModelForCausalLM"), LoraConfig(task_type="CAUSAL_LM", **settings))
    with torch.no_grad():
        for parameter, value in model.named_parameters():
            if "lora_B" in parameter:
                value.copy_(0.3 * torch.randn_like(value))
    model.peft_config["default"].base_model_name_or_path = base
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    if isinstance(config["target_modules"], list):
        config["target_modules"].sort()  # peft keeps a set, whose order changes from run to run
    path.write_text(json.dumps(config, indent=2) + "\n")
    model = PeftModel.from_pretrained(reload(ROOT / base, "AutoModelForCausalLM"), folder, is_trainable=True).eval()
    sequences = batch()
    masks = token_masks(sequences)
    expected = describe(model, sequences, masks)
    expected = {key.replace(".default.weight", ".weight"): value for key, value in expected.items()}
    merged = model.merge_and_unload()
    with torch.no_grad():
        out, seen = run(merged, sequences, left=False)
        close(ragged(out.logits, seen), expected["logits"], "merged")
    site = "model.layers.1.self_attn.q_proj.weight"
    store(folder, {**expected, f"merged.{site}": merged.state_dict()[site]})


ROPE = {
    "llama3": dict(rope_type="llama3", rope_theta=10000.0, factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0,
                   original_max_position_embeddings=64),
    "linear": dict(rope_type="linear", rope_theta=10000.0, factor=2.5),
    "yarn": dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=512),
}

FIXTURES = {
    "llama": lambda name: curve(language(name, "Llama", tie_word_embeddings=True)),
    "llama_bias": lambda name: language(name, "Llama", attention_bias=True, mlp_bias=True),
    "llama_bare": bare,
    "llama3_rope": lambda name: language(name, "Llama", head_dim=8, max_position_embeddings=256,
                                         rope_parameters=ROPE["llama3"]),
    "linear_rope": lambda name: old_spelling(language(name, "Llama", rope_parameters=ROPE["linear"])),
    "yarn_rope": lambda name: language(name, "Llama", num_attention_heads=2, num_key_value_heads=1, head_dim=16,
                                       max_position_embeddings=2048, rope_parameters=ROPE["yarn"]),
    "mistral": lambda name: language(name, "Mistral", sliding_window=4),
    "qwen2": lambda name: language(name, "Qwen2", use_sliding_window=True, sliding_window=4, max_window_layers=1),
    "qwen3": lambda name: language(name, "Qwen3", head_dim=8, tie_word_embeddings=True),
    "smollm3": lambda name: language(name, "SmolLM3", no_rope_layers=[1, 0], tie_word_embeddings=True),
    "bf16": lambda name: language(name, "Llama", dtype=torch.bfloat16),
    "sharded_f16": lambda name: language(name, "Qwen2", dtype=torch.float16, shard="4KB"),
    "sequence_head": sequence_head,
    "token_head": token_head,
    "value_head": value_head,
    "lora": lambda name: adapter(name, "llama", r=3, lora_alpha=5, target_modules="all-linear"),
    "lora_rs": lambda name: adapter(name, "qwen3", r=4, lora_alpha=6, use_rslora=True, layers_to_transform=[1],
                                    target_modules=["q_proj", "down_proj"]),
    "lora_regex": lambda name: adapter(name, "llama", r=2, lora_alpha=4,
                                       target_modules=r".*\.layers\.\d+\.(self_attn\.(k|o)_proj|mlp\.up_proj)"),
}

if __name__ == "__main__":
    torch.set_num_threads(2)
    hf.utils.logging.disable_progress_bar()
    torch.use_deterministic_algorithms(True)
    for name in sys.argv[1:] or FIXTURES:
        FIXTURES[name](name)
        size = sum(file.stat().st_size for file in (ROOT / name).iterdir())
        print(f"{name:16} {size / 1024:6.1f} kB")
