"""Hone's text metrics and statistics beside sacrebleu, rouge_score, scipy, scikit-learn and krippendorff.

Prints one line per metric: the number of cases and the largest difference. Fails above 1e-6.
"""

import json
import pathlib
import random
import subprocess
import sys

import krippendorff
import numpy as np
import sacrebleu
from rouge_score import rouge_scorer
from scipy import stats
from sklearn.metrics import cohen_kappa_score

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOLERANCE = 1e-6


def texts(rng):
    """Pairs of candidate and references: random words with punctuation, and real answers where they are there."""
    words = "the a cat dog sat on mat, ran. 3.5 1,000 it's (well) U.S. über naïve 中文 e-mail 2-way & &amp; \"quoted\" fine! ; : / x_y".split()
    cases = []
    for n in range(150):
        reference = [rng.choice(words) for _ in range(rng.randint(1, 25))]
        candidate = [w if rng.random() < 0.7 else rng.choice(words) for w in reference][: rng.randint(1, 25)]
        other = [rng.choice(words) for _ in range(rng.randint(1, 20))]
        references = [" ".join(reference)] + ([" ".join(other)] if n % 3 == 0 else [])
        cases.append((" ".join(candidate), references))
    path = ROOT / "../shared/data/qa_feedback/dev_feedback_first250.jsonl"
    if path.exists():
        rows = [json.loads(line) for line in path.read_text().split("\n") if line]
        cases += [(row["prediction 1"], [row["gold"]]) for row in rows[:60]]
    return cases


def main():
    rng = random.Random(7)
    cases = texts(rng)
    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=False)
    jobs, expected = [], []

    def job(name, value, **arguments):
        jobs.append({"metric": name, **arguments})
        expected.append(value)

    for candidate, references in cases:
        pair = {"candidate": candidate, "references": references}
        job("sentence_bleu", sacrebleu.sentence_bleu(candidate, references).score, **pair)
        job("chrf", sacrebleu.sentence_chrf(candidate, references).score, **pair)
        scores = scorer.score(references[0], candidate)
        for name in scores:
            job(name, scores[name].fmeasure, **pair)
    single = [(candidate, references[0]) for candidate, references in cases]
    for start in range(0, len(single), 30):
        part = single[start : start + 30]
        candidates, references = [c for c, _ in part], [r for _, r in part]
        pairs = [[c, [r]] for c, r in part]
        job("corpus_bleu", sacrebleu.corpus_bleu(candidates, [references]).score, pairs=pairs)
        job("corpus_chrf", sacrebleu.corpus_chrf(candidates, [references]).score, pairs=pairs)
    for n in range(60):
        size = rng.randint(8, 60)
        a = [rng.randint(0, 4) for _ in range(size)]
        b = [x if rng.random() < 0.6 else rng.randint(0, 4) for x in a]
        if len(set(a)) < 2 or len(set(b)) < 2:
            continue
        job("kappa", cohen_kappa_score(a, b), a=a, b=b)
        job("kendall", stats.kendalltau(a, b).statistic, a=a, b=b)
        job("spearman", stats.spearmanr(a, b).statistic, a=a, b=b)
        gaps = [rng.gauss(0.2, 1) for _ in range(rng.randint(5, 24))]
        job("wilcoxon", stats.wilcoxon(gaps, method="exact").pvalue, a=[0.0] * len(gaps), b=gaps)
        if sum(x != y for x, y in zip(a, b)) > 0:
            reference = stats.wilcoxon(a, b, method="approx", correction=True).pvalue
            job("wilcoxon", reference, a=[float(x) for x in a], b=[float(x) for x in b])
        marks = np.array([a, b, [x if rng.random() < 0.5 else np.nan for x in a]], dtype=float)
        units = [[float(v) for v in column if not np.isnan(v)] for column in marks.T]
        for level in ["nominal", "ordinal", "interval"]:
            job("alpha_" + level, krippendorff.alpha(marks, level_of_measurement=level), units=units)

    command = ["cargo", "run", "-q", "-p", "hone-feedback", "--example", "metrics_cli"]
    run = subprocess.run(command, cwd=ROOT, input="\n".join(map(json.dumps, jobs)), text=True, capture_output=True, check=False)
    if run.returncode != 0:
        sys.exit(run.stderr)
    got = [json.loads(line) for line in run.stdout.splitlines()]
    if len(got) != len(jobs):
        sys.exit(f"{len(jobs)} jobs, {len(got)} answers")
    worst = {}
    for task, value, want in zip(jobs, got, expected):
        # A kappa or alpha that chance alone explains is undefined on both sides.
        gap = 0.0 if value is None and np.isnan(want) else abs(value - want) if value is not None else float("inf")
        count, high, example = worst.get(task["metric"], (0, 0.0, None))
        worst[task["metric"]] = (count + 1, max(high, gap), (task, value, want) if gap > high else example)
    failed = False
    for name, (count, gap, example) in worst.items():
        print(f"{name:16} {count:4} cases, largest difference {gap:.2e}")
        if gap > TOLERANCE:
            failed = True
            print("   ", json.dumps(example[0])[:400], "got", example[1], "needed", example[2])
    sys.exit(failed)


main()
