"""Hone's metrics beside the reference packages on 10,000 texts or marks: largest difference, seconds, ratio.

    python compare/metrics/speed.py [--program target/release/examples/metrics_speed]

One thread each; the faster of three rounds. Prints a table in Markdown and fails where a value differs by more than 1e-6.
Candidates and references are real texts where ../shared/data is there (answers of QA-Feedback and of HH-RLHF), else made up.
The reference for exact match and F1 is the normalisation of SQuAD's evaluation, written out below.
"""

import argparse
import collections
import json
import pathlib
import random
import re
import string
import subprocess
import sys
import time

import choix
import krippendorff
import numpy as np
import sacrebleu
from rouge_score import rouge_scorer
from scipy import stats
from sklearn.metrics import cohen_kappa_score, ndcg_score

ROOT = pathlib.Path(__file__).resolve().parents[2]
COUNT, TOLERANCE = 10_000, 1e-6


def words_of(text):
    kept = "".join(c for c in text.lower() if c not in string.punctuation)
    return [w for w in kept.split() if w not in ("a", "an", "the")]


def exact(candidate, reference):
    return float(words_of(candidate) == words_of(reference))


def token_f1(candidate, reference):
    a, b = words_of(candidate), words_of(reference)
    if not a or not b:
        return float(a == b)
    common = sum((collections.Counter(a) & collections.Counter(b)).values())
    if not common:
        return 0.0
    precision, recall = common / len(a), common / len(b)
    return 2 * precision * recall / (precision + recall)


def texts(rng):
    path = ROOT / "../shared/data/qa_feedback/dev_feedback_first250.jsonl"
    if path.exists():
        rows = [json.loads(line) for line in path.read_text().split("\n") if line]
        real = [(row[f"prediction {n}"], row["gold"]) for row in rows for n in (1, 2, 3, 4) if f"prediction {n}" in row]
    else:
        vocabulary = [f"word{n}" for n in range(400)]
        text = lambda: " ".join(rng.choice(vocabulary) for _ in range(60)) + "."
        real = [(text(), text()) for _ in range(1000)]
    # Every repetition loses some words of the candidate, so that no two pairs are alike.
    pairs = []
    while len(pairs) < COUNT:
        candidate, reference = real[len(pairs) % len(real)]
        if len(pairs) >= len(real):
            candidate = " ".join(w for w in candidate.split() if rng.random() < 0.9) or candidate
        pairs.append((candidate, reference))
    return pairs


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", default=str(ROOT / "target/release/examples/metrics_speed"))
    program = parser.parse_args().program
    rng = random.Random(11)
    pairs = texts(rng)
    candidates, references = [c for c, _ in pairs], [r for _, r in pairs]
    rouge = {n: rouge_scorer.RougeScorer([n]) for n in ("rouge1", "rouge2", "rougeL")}
    a = [rng.randint(0, 4) for _ in range(COUNT)]
    b = [x if rng.random() < 0.6 else rng.randint(0, 4) for x in a]
    c = [x if rng.random() < 0.5 else np.nan for x in a]
    marks = np.array([a, b, c], dtype=float)
    units = [[float(v) for v in column if not np.isnan(v)] for column in marks.T]
    lists = []
    for _ in range(1000):
        scores = [rng.random() for _ in range(10)]
        lists.append((scores, [float(rng.randint(0, 3)) for _ in scores[1:]] + [1.0]))
    strength = [rng.gauss(0, 1) for _ in range(50)]
    wins = []
    for _ in range(COUNT):
        x, y = rng.sample(range(50), 2)
        wins.append((x, y) if rng.random() < 1 / (1 + np.exp(strength[y] - strength[x])) else (y, x))
    each = lambda score: lambda: [score(c, r) for c, r in pairs]
    ndcg = lambda: [ndcg_score([[2**g - 1 for g in grades]], [scores], k=10, ignore_ties=True) for scores, grades in lists]
    text = {"pairs": pairs}
    rows = [
        ("BLEU", "sacrebleu", each(lambda c, r: sacrebleu.sentence_bleu(c, [r]).score), text),
        ("corpus BLEU", "sacrebleu", lambda: [sacrebleu.corpus_bleu(candidates, [references]).score], text),
        ("chrF", "sacrebleu", each(lambda c, r: sacrebleu.sentence_chrf(c, [r]).score), text),
        ("corpus chrF", "sacrebleu", lambda: [sacrebleu.corpus_chrf(candidates, [references]).score], text),
        ("ROUGE-1", "rouge_score", each(lambda c, r: rouge["rouge1"].score(r, c)["rouge1"].fmeasure), text),
        ("ROUGE-2", "rouge_score", each(lambda c, r: rouge["rouge2"].score(r, c)["rouge2"].fmeasure), text),
        ("ROUGE-L", "rouge_score", each(lambda c, r: rouge["rougeL"].score(r, c)["rougeL"].fmeasure), text),
        ("exact match", "SQuAD's rules in Python", each(exact), text),
        ("token F1", "SQuAD's rules in Python", each(token_f1), text),
        ("kappa", "scikit-learn", lambda: [cohen_kappa_score(a, b)], {"a": a, "b": b}),
        ("alpha, nominal", "krippendorff", lambda: [krippendorff.alpha(marks, level_of_measurement="nominal")], {"units": units}),
        ("alpha, interval", "krippendorff", lambda: [krippendorff.alpha(marks, level_of_measurement="interval")], {"units": units}),
        ("Kendall", "scipy", lambda: [stats.kendalltau(a, b).statistic], {"a": a, "b": b}),
        ("nDCG@10", "scikit-learn", ndcg, {"lists": lists}),
        ("Bradley-Terry", "choix", lambda: list(choix.ilsr_pairwise(50, wins, alpha=0.0, max_iter=1000, tol=1e-10)), {"wins": wins, "items": 50}),
    ]
    print("| metric | peer | largest difference | peer, s | Hone, s | speed |\n|---|---|---|---|---|---|")
    failed = False
    for name, peer, run, job in rows:
        # The slow ones are timed once: their time does not swing by as much as they are behind.
        seconds, rounds = float("inf"), 0
        while rounds < 3 and (rounds == 0 or seconds < 5):
            started = time.perf_counter()
            wanted = run()
            seconds, rounds = min(seconds, time.perf_counter() - started), rounds + 1
        done = subprocess.run([program], input=json.dumps({"metric": name, "rounds": 3, **job}), text=True, capture_output=True, check=True)
        got = json.loads(done.stdout)
        gap = max((abs(x - y) for x, y in zip(got["values"], wanted, strict=True)), default=float("inf"))
        failed |= not gap <= TOLERANCE
        print(f"| {name} | {peer} | {gap:.1e} | {seconds:.3f} | {got['seconds']:.4f} | {seconds / got['seconds']:.1f} × |", flush=True)
    sys.exit(failed)


main()
