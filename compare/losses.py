"""Compares the methods' losses with TRL's on the same numbers, and whole training runs on the same folders.

    cargo build --release -p hone-methods --example losses
    python compare/losses.py [--hone target/release/examples/losses] [--seed 0]

Losses: seeded log-probabilities of tokens, in float32, go through the loss code of TRL's trainers (called on a model
that returns them) and through the methods' own functions. Runs: a tiny random Llama is trained by TRL's trainers and
by the methods, all rows in one step, AdamW with clipping; losses and gradient norms of all steps are compared. Where
TRL has no such trainer, transformers or PyTorch stands in, as the table says. Prints both numbers and their
difference; ends with status 1 if any loss differs by more than 1e-5, or a gradient's norm by more than 1e-4 of
itself. Needs torch, transformers and trl.
"""

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import warnings
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace as Space

os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
warnings.filterwarnings("ignore")

import torch
import torch.nn.functional as F
import transformers as hf
import trl
from datasets import Dataset, disable_progress_bars
from tokenizers import Tokenizer, models, pre_tokenizers
from trl.experimental.cpo import CPOTrainer
from trl.experimental.orpo import ORPOTrainer
from trl.experimental.sdpo.loss_utils import compute_topk_self_distillation_loss

LIMIT = 1e-5
PAIRS, STEPS, WORDS = 6, 8, 24


# Losses on given numbers.

def fake_trainer(**attributes):
    """What the loss code of a trainer asks of `self`."""
    gather = lambda x: x
    accelerator = Space(
        device="cpu", gather_for_metrics=gather, gather=gather, reduce=lambda x, reduction: x, num_processes=1,
        parallelism_config=None, sync_gradients=True,
    )
    shared = dict(
        accelerator=accelerator, model=Space(training=True), _metrics=defaultdict(lambda: defaultdict(list)),
        _total_train_tokens=0, _tp_size=1, aux_loss_enabled=False, precompute_ref_logps=True, get_tp_size=lambda: 1,
    )
    return Space(**{**shared, **attributes})


def padded(rows, width=None):
    """Rows of different lengths after one prompt token, as TRL lays them out: log-probabilities, 0 behind their end."""
    width = width or max(map(len, rows))
    logps, mask = torch.zeros(len(rows), width), torch.zeros(len(rows), width + 1, dtype=torch.long)
    for i, row in enumerate(rows):
        logps[i, : len(row)] = row
        mask[i, 1 : len(row) + 1] = 1
    return logps, mask


def fake_model(logps):
    def model(**_):
        zeros = torch.zeros_like(logps)
        return Space(log_probs=logps, entropy=zeros, mean_logits=zeros, is_top1=logps > 0, label_mask=logps != 0)
    return model


def summed(rows):
    return torch.stack([row.sum() for row in rows])


def trl_dpo(batch, loss_type, beta, smoothing=0.0):
    """The loss of trl.DPOTrainer."""
    width = max(len(row) for row in batch["chosen"] + batch["rejected"])
    logps, mask = padded(batch["chosen"] + batch["rejected"], width)
    trainer = fake_trainer(
        ld_alpha=None, f_divergence_type="reverse_kl", loss_types=[loss_type], loss_weights=[1.0], beta=beta,
        label_smoothing=smoothing, use_weighting=False,
    )
    inputs = dict(
        input_ids=mask, attention_mask=mask, completion_mask=mask,
        ref_chosen_logps=summed(batch["ref_chosen"]), ref_rejected_logps=summed(batch["ref_rejected"]),
    )
    return trl.DPOTrainer._compute_loss(trainer, fake_model(logps), inputs, False).item()


def trl_dpo_smoothed(batch, beta, smoothing):
    """TRL's loss with swapped labels sits in `aot`, which sorts pairs first: of single pairs it is that of DPO."""
    singles = [{key: [rows[i]] for key, rows in batch.items()} for i in range(PAIRS)]
    return sum(trl_dpo(single, "aot", beta, smoothing) for single in singles) / PAIRS


def trl_kto(batch, good, kl_now, kl_then, beta, weights):
    """The loss of trl.KTOTrainer; the point of reference comes from `kl_now` and `kl_then`."""
    logps, mask = padded(batch["answers"])
    trainer = fake_trainer(
        beta=beta, desirable_weight=weights[0], undesirable_weight=weights[1], loss_type="kto", calculate_KL=True,
        _compute_kl_logps=lambda *_: kl_now,
    )
    inputs = dict(
        input_ids=mask, attention_mask=mask, completion_mask=mask, label=torch.tensor(good),
        ref_logps=summed(batch["ref_answers"]), ref_KL_logps=kl_then,
    )
    return trl.KTOTrainer._compute_loss(trainer, fake_model(logps), inputs, False).item()


def trl_orpo(chosen, rejected, beta):
    """The odds ratio of trl.experimental.orpo; its likelihood term reads the prompt too, so that is a mean here."""
    trainer = fake_trainer(beta=beta)
    losses = ORPOTrainer.odds_ratio_loss(trainer, chosen, rejected)[0]
    return (-chosen.mean() - losses.mean()).item()


def trl_hinge(chosen, rejected):
    """The hinge of trl.experimental.cpo without a reference: margin 1 at β 1."""
    trainer = fake_trainer(beta=1.0, alpha=0.0, loss_type="hinge", label_smoothing=0.0)
    return CPOTrainer.cpo_loss(trainer, chosen, rejected)[0].mean().item()


def trl_reward(chosen, rejected, margin=None, centre=None):
    """The loss of trl.RewardTrainer."""
    trainer = fake_trainer(args=Space(center_rewards_coefficient=centre))
    logits = torch.cat([chosen, rejected]).unsqueeze(1)
    inputs = dict(attention_mask=torch.ones(2), **({} if margin is None else {"margin": margin}))
    drop = lambda attention_mask, use_cache, margin=None: Space(logits=logits)
    return trl.RewardTrainer.compute_loss(trainer, drop, inputs).item()


def trl_advantages(rewards, group, scale):
    """What trl.GRPOTrainer makes of rewards, amid its sampling: its formula, not its code."""
    groups = rewards.view(-1, group)
    centred = groups - groups.mean(1, keepdim=True)
    return (centred / (groups.std(1, keepdim=True) + 1e-4) if scale else centred).flatten()


def trl_grpo(rollouts, advantages, loss_type, clip, beta, max_tokens):
    """The loss of trl.GRPOTrainer, all rollouts in one step."""
    logps, mask = padded(rollouts["now"])
    mask = mask[:, 1:]
    trainer = fake_trainer(
        args=Space(delta=None, use_bias_correction_kl=False, steps_per_generation=1), loss_type=loss_type, beta=beta,
        epsilon_low=clip[0], epsilon_high=clip[1], importance_sampling_level="token", max_completion_length=max_tokens,
        top_entropy_quantile=1.0, off_policy_mask_threshold=None, use_vllm=False, _entropy_bonus_enabled=False,
        current_gradient_accumulation_steps=1,
        _get_per_token_logps_and_entropies=lambda *_, **__: (logps, torch.zeros_like(logps), None),
    )
    inputs = dict(
        prompt_ids=mask[:, :1], prompt_mask=mask[:, :1], completion_ids=mask, completion_mask=mask, advantages=advantages,
        old_per_token_logps=padded(rollouts["old"])[0], ref_per_token_logps=padded(rollouts["ref"])[0],
        num_items_in_batch=mask.sum(),
    )
    return trl.GRPOTrainer._compute_loss(trainer, None, inputs).item()


def trl_rloo(rollouts, rewards, group):
    """The loss of trl.RLOOTrainer where nothing is clipped; the advantages by its formula."""
    logps, mask = padded(rollouts["now"])
    mask = mask[:, 1:]
    trainer = fake_trainer(
        epsilon_low=0.999, epsilon_high=1e6,
        _get_per_token_logps_and_entropies=lambda *_, **__: (logps, torch.zeros_like(logps), None),
    )
    groups = rewards.view(-1, group)
    others = (groups.sum(1, keepdim=True) - groups) / (group - 1)
    inputs = dict(
        prompt_ids=mask[:, :1], prompt_mask=mask[:, :1], completion_ids=mask, completion_mask=mask,
        old_logps=summed(rollouts["old"]), advantages=(groups - others).flatten(),
    )
    return trl.RLOOTrainer._compute_loss(trainer, None, inputs).item()


def trl_sft(rows):
    """The loss of trl.SFTTrainer with tokens of the prompt masked."""
    logps, mask = padded(rows)
    trainer = fake_trainer(
        compute_loss_func=None, label_smoother=None,
        args=Space(loss_type="nll", average_tokens_across_devices=False, max_length=None),
    )
    return trl.SFTTrainer.compute_loss(trainer, fake_model(logps), dict(input_ids=mask, attention_mask=mask)).item()


def token_classification(logits, labels):
    """transformers' token classification, which TRL's PRMTrainer used: two classes, the first one's logit 0."""
    from transformers.loss.loss_utils import ForTokenClassification

    both = torch.stack([torch.zeros_like(logits), logits], 1).unsqueeze(0)
    return ForTokenClassification(both, labels.long().unsqueeze(0), Space(num_labels=2)).item()


def loss_cases(seed):
    """Rows of (name, peer, TRL's number, case for Hone)."""
    torch.manual_seed(seed)
    draw = lambda: [-3 * torch.rand(n) ** 2 for n in torch.randint(1, 9, (PAIRS,)).tolist()]
    batch = {key: draw() for key in ("chosen", "rejected")}
    near = lambda rows: [row + 0.3 * torch.randn_like(row) for row in rows]
    batch |= {f"ref_{key}": near(rows) for key, rows in batch.items()}
    lists = {key: [row.tolist() for row in rows] for key, rows in batch.items()}
    means = [torch.stack([row.mean() for row in batch[key]]) for key in ("chosen", "rejected")]
    sums = [summed(batch[key]) for key in ("chosen", "rejected")]
    scores = {key: 2 * torch.randn(PAIRS) for key in ("chosen", "rejected")}
    score_lists = {key: values.tolist() for key, values in scores.items()}
    margin = torch.rand(PAIRS)

    yield "sft", "SFTTrainer", trl_sft(batch["chosen"]), dict(loss="sft", **lists)
    yield "dpo", "DPOTrainer sigmoid", trl_dpo(batch, "sigmoid", 0.1), dict(loss="dpo", beta=0.1, smoothing=0.0, **lists)
    smoothed = dict(loss="dpo", beta=0.5, smoothing=0.2, **lists)
    yield "dpo, label_smoothing", "DPOTrainer aot", trl_dpo_smoothed(batch, 0.5, 0.2), smoothed
    ipo = dict(loss="ipo", tau=0.1, per_token=True, **lists)
    yield "ipo, per_token", "DPOTrainer ipo", trl_dpo(batch, "ipo", 0.1), ipo
    # Responses of one token have the same mean and sum: there the paper's loss and TRL's are one.
    short = {key: [row[:1] for row in rows] for key, rows in batch.items()}
    case = dict(loss="ipo", tau=0.3, per_token=False, **{key: [r.tolist() for r in rows] for key, rows in short.items()})
    yield "ipo, one token", "DPOTrainer ipo", trl_dpo(short, "ipo", 0.3), case
    yield "slic, hinge", "CPOTrainer hinge", trl_hinge(*sums), dict(loss="slic", margin=1.0, **lists)
    normed = dict(loss="slic-norm", margin=1.0, scale=0.4, **lists)
    yield "slic, normalised", "DPOTrainer hinge", trl_dpo(batch, "hinge", 0.4), normed
    yield "orpo", "ORPOTrainer odds ratio", trl_orpo(*means, 0.1), dict(loss="orpo", **{"lambda": 0.1}, **lists)

    answers = {"answers": batch["chosen"] + batch["rejected"], "ref_answers": batch["ref_chosen"] + batch["ref_rejected"]}
    good = [i % 3 != 0 for i in range(2 * PAIRS)]
    for name, shift in [("kto, z > 0", 0.5), ("kto, z = 0", -9.0)]:
        kl_now = summed(answers["answers"])
        kl_then = kl_now - shift - 0.1 * torch.randn(2 * PAIRS)
        z = max((kl_now - kl_then).double().mean().item(), 0.0)
        case = dict(
            loss="kto", beta=0.3, desirable_weight=1.0, undesirable_weight=1.5, z=z, good=[float(g) for g in good],
            **{key: [row.tolist() for row in rows] for key, rows in answers.items()},
        )
        yield name, "KTOTrainer", trl_kto(answers, good, kl_now, kl_then, 0.3, (1.0, 1.5)), case

    pairs = dict(loss="reward-pairs", centre=0.0, margin=[0.0] * PAIRS, **score_lists)
    yield "reward-pairs", "RewardTrainer", trl_reward(**scores), pairs
    pairs = pairs | dict(centre=0.01, margin=margin.tolist())
    yield "reward-pairs, margin, centre", "RewardTrainer", trl_reward(**scores, margin=margin, centre=0.01), pairs
    yield "reward-lists of two", "RewardTrainer", trl_reward(**scores), dict(loss="reward-lists", **score_lists)
    logits, labels = 3 * torch.randn(12), torch.randint(0, 2, (12,)).float()
    marks = dict(loss="reward-marks", logits=logits.tolist(), labels=labels.tolist())
    yield "reward-steps, reward-spans", "transformers", token_classification(logits, labels), marks

    group, long = 4, 12
    now = [-3 * torch.rand(n) ** 2 for n in torch.randint(1, 9, (2 * group,)).tolist()]
    rollouts = dict(now=now, old=near(now), ref=near(now))
    rewards = torch.rand(2 * group)
    shared = dict(rewards=rewards.tolist(), group=group, **{key: [row.tolist() for row in rows] for key, rows in rollouts.items()})
    for name, loss_type, normalise, scale, clip, beta in [
        ("grpo", "grpo", "answers", True, (0.2, 0.2), 0.04),
        ("grpo, Dr. GRPO", "dr_grpo", "constant", False, (0.2, 0.2), 0.0),
        ("grpo, DAPO", "dapo", "tokens", True, (0.2, 0.28), 0.0),
        ("grpo, DAPO with a penalty", "dapo", "tokens", True, (0.2, 0.28), 0.1),
    ]:
        own = dict(
            kl_weight=beta, clip_low=clip[0], clip_high=clip[1], scale_rewards=scale, normalise=normalise,
            draw=dict(max_tokens=long),
        )
        peer = trl_grpo(rollouts, trl_advantages(rewards, group, scale), loss_type, clip, beta, long)
        yield name, f"GRPOTrainer {loss_type}", peer, dict(loss="grpo", own=own, **shared)
    policy, teacher = 2 * torch.randn(2, 16, 40)
    for name, alpha, tail in [("reverse", 1.0, True), ("Jensen-Shannon", 0.5, True), ("forward, no tail", 0.0, False)]:
        peer = compute_topk_self_distillation_loss(
            policy, teacher, distillation_topk=10, distillation_alpha=alpha, distillation_add_tail=tail,
        ).mean().item()
        logps, places = policy.log_softmax(-1).topk(10)
        case = dict(policy=logps.tolist(), teacher=teacher.log_softmax(-1).gather(1, places).tolist())
        yield f"sdpo, {name}", "SDPOTrainer top-k", peer, dict(loss="sdpo", alpha=alpha, tail=tail, **case)
    yield "rloo", "RLOOTrainer", trl_rloo(rollouts, rewards, group), dict(loss="rloo", own=dict(kl_weight=0.0), **shared)


# Whole runs.

def save(folder, cls):
    """A tiny random model and a tokenizer of words, in one folder."""
    names = ["<unk>", "</s>", "<pad>", "say"] + [f"w{i}" for i in range(WORDS)]
    words = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = hf.PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", eos_token="</s>", pad_token="<pad>", model_max_length=64,
    )
    config = hf.LlamaConfig(
        vocab_size=len(names), hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.3, rms_norm_eps=1e-5,
        bos_token_id=None, eos_token_id=1, pad_token_id=2, tie_word_embeddings=False, num_labels=1,
    )
    torch.manual_seed(1)
    cls(config).float().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return tokenizer


def rows_of(kind, seed):
    generator = torch.Generator().manual_seed(seed)
    word = lambda: f"w{torch.randint(0, WORDS, (1,), generator=generator).item()}"
    phrase = lambda: "".join(f" {word()}" for _ in range(torch.randint(2, 7, (1,), generator=generator).item()))
    prompts = [f"say {word()} {word()}" for _ in range(PAIRS)]
    match kind:
        case "completion":
            return [dict(prompt=p, completion=phrase()) for p in prompts]
        # Two answers only: then there is one way to set each under the other's prompt. They share most words, so that
        # what is learnt of the good one moves the policy as a whole and the point of reference leaves 0.
        case "label":
            shared, ends = phrase() + phrase(), [f" {word()}", f" {word()}"]
            return [dict(prompt=p, completion=shared + end, label=i == 0) for i, (p, end) in enumerate(zip(prompts, ends))]
        case "rating":
            return [dict(prompt=p, completion=phrase(), rating=(i % 5) / 4) for i, p in enumerate(prompts)]
        case _:
            return [dict(prompt=p, chosen=phrase(), rejected=phrase()) for p in prompts]


def settings(rows, **own):
    training = dict(
        learning_rate=3e-3, batch_size=len(rows), epochs=float(STEPS), warm_up=0.0, decay="constant", beta2=0.999,
        weight_decay=0.0, max_grad_norm=1.0, max_tokens=64,
    )
    return dict(training=training, **own)


def train(trainer_class, config_class, model_class, folder, tokenizer, rows, **own):
    """Losses and gradient norms of TRL's trainer, all rows in each step."""
    args = config_class(
        output_dir=tempfile.mkdtemp(), use_cpu=True, bf16=False, gradient_checkpointing=False, report_to="none",
        per_device_train_batch_size=len(rows), num_train_epochs=STEPS, learning_rate=3e-3, weight_decay=0.0,
        lr_scheduler_type="constant", warmup_steps=0, max_grad_norm=1.0, logging_steps=1, save_strategy="no",
        disable_tqdm=True, max_length=64, optim="adamw_torch", **own,
    )
    model = model_class.from_pretrained(folder, dtype=torch.float32)
    extra = {}
    if trainer_class in (trl.DPOTrainer, trl.KTOTrainer):
        extra["ref_model"] = model_class.from_pretrained(folder, dtype=torch.float32)
    trainer = trainer_class(model=model, args=args, train_dataset=Dataset.from_list(rows), processing_class=tokenizer, **extra)
    trainer.remove_callback(hf.PrinterCallback)
    losses, compute = [], trainer.compute_loss

    def recorded(*args, **kwargs):
        loss = compute(*args, **kwargs)
        losses.append((loss[0] if isinstance(loss, tuple) else loss).item())
        return loss

    trainer.compute_loss = recorded
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "grad_norm" in entry]
    return [
        dict(loss=loss, grad_norm=float(log["grad_norm"]), kl=float(log.get("kl", 0.0)))
        for loss, log in zip(losses, logs, strict=True)
    ]


def regress(folder, tokenizer, rows):
    """transformers' regression head, trained by hand in PyTorch."""
    model = hf.LlamaForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    model.config.problem_type = "regression"
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    texts = [row["prompt"] + row["completion"] + " </s>" for row in rows]
    batch = tokenizer(texts, return_tensors="pt", padding=True, padding_side="right")
    targets = torch.tensor([row["rating"] for row in rows])
    steps = []
    for _ in range(STEPS):
        loss = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=targets).loss
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        steps.append(dict(loss=loss.item(), grad_norm=norm.item()))
    return steps


def run_cases(folder):
    """Rows of (method, peer, the peer's steps, case for Hone)."""
    language, scoring = folder / "language", folder / "scoring"
    tokenizer = save(language, hf.LlamaForCausalLM)
    save(scoring, hf.LlamaForSequenceClassification)
    causal = hf.AutoModelForCausalLM

    def case(method, model, rows, **own):
        return dict(kind="run", method=method, model=str(model), rows=rows, settings=settings(rows, **own))

    rows = rows_of("completion", 1)
    peer = train(trl.SFTTrainer, trl.SFTConfig, causal, language, tokenizer, rows, completion_only_loss=True)
    yield "sft", "SFTTrainer", peer, case("sft", language, rows)
    rows = rows_of("pair", 2)
    peer = train(trl.DPOTrainer, trl.DPOConfig, causal, language, tokenizer, rows, beta=0.1)
    yield "dpo", "DPOTrainer", peer, case("dpo", language, rows, beta=0.1)
    peer = train(trl.DPOTrainer, trl.DPOConfig, causal, language, tokenizer, rows, beta=0.1, loss_type="ipo")
    yield "ipo", "DPOTrainer ipo", peer, case("ipo", language, rows, tau=0.1, per_token=True)
    peer = train(trl.DPOTrainer, trl.DPOConfig, causal, language, tokenizer, rows, beta=0.02, loss_type="hinge")
    yield "slic", "DPOTrainer hinge", peer, case("slic", language, rows, normalised=True, margin=1.0, scale=0.02)
    labelled = rows_of("label", 3)
    own = dict(beta=0.1, desirable_weight=1.0, undesirable_weight=0.1)
    peer = train(trl.KTOTrainer, trl.KTOConfig, causal, language, tokenizer, labelled, **own)
    assert max(step["kl"] for step in peer) > 0, "the point of reference never left 0"
    yield "kto", "KTOTrainer", peer, case("kto", language, labelled, **own)
    classifier = hf.AutoModelForSequenceClassification
    peer = train(trl.RewardTrainer, trl.RewardConfig, classifier, scoring, tokenizer, rows, center_rewards_coefficient=0.01)
    yield "reward-pairs", "RewardTrainer", peer, case("reward-pairs", scoring, rows, centre=0.01)
    rated = rows_of("rating", 4)
    yield "reward-ratings", "transformers, PyTorch", regress(scoring, tokenizer, rated), case("reward-ratings", scoring, rated)


def main():
    root = Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser()
    parser.add_argument("--hone", type=Path, default=root / "target/release/examples/losses")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    hf.logging.set_verbosity_error()
    hf.logging.disable_progress_bar()
    logging.disable(logging.WARNING)
    disable_progress_bars()
    if options.hone == parser.get_default("hone"):
        subprocess.run(
            ["cargo", "build", "--quiet", "--release", "-p", "hone-methods", "--example", "losses"], cwd=root, check=True,
        )

    def ask(cases):
        answer = subprocess.run([options.hone], input=json.dumps(cases), capture_output=True, text=True)
        if answer.returncode != 0:
            sys.exit(f"{options.hone}: {answer.stderr}")
        return json.loads(answer.stdout)

    failed = 0
    losses = list(loss_cases(options.seed))
    answers = ask({name: case for name, _, _, case in losses})
    print(f"trl {trl.__version__}, transformers {hf.__version__}, torch {torch.__version__}, float32\n")
    print("| loss | peer | peer's number | Hone's | difference |\n|---|---|---|---|---|")
    for name, peer, number, _ in losses:
        difference = abs(number - answers[name])
        failed += difference > LIMIT
        print(f"| {name} | {peer} | {number:.7f} | {answers[name]:.7f} | {difference:.1e} |")

    with tempfile.TemporaryDirectory() as folder:
        runs = list(run_cases(Path(folder)))
        answers = ask({name: case for name, _, _, case in runs})
    print(f"\n| run, {STEPS} steps | peer | first loss | last loss, peer | last loss, Hone | largest difference of a loss "
          "| of a gradient's norm, relative |\n|---|---|---|---|---|---|---|")
    for name, peer, steps, _ in runs:
        own = answers[name]
        assert len(own) == len(steps) == STEPS, (name, len(own), len(steps))
        loss = max(abs(a["loss"] - b["loss"]) for a, b in zip(steps, own))
        norm = max(abs(a["grad_norm"] - b["grad_norm"]) / max(a["grad_norm"], 1e-6) for a, b in zip(steps, own))
        failed += loss > LIMIT or norm > 10 * LIMIT
        last = f"{steps[-1]['loss']:.6f} | {own[-1]['loss']:.6f}"
        print(f"| {name} | {peer} | {steps[0]['loss']:.6f} | {last} | {loss:.1e} | {norm:.1e} |")
    if failed:
        sys.exit(f"{failed} of {len(losses) + len(runs)} differ by too much")


if __name__ == "__main__":
    main()
