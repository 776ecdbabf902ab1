//! How good a ranking is: DCG, nDCG, recall, reciprocal rank, diversity.

/// Discounted cumulative gain of the first `k` grades in ranked order: `Σ (2^g − 1) / log2(rank + 1)`, rank from 1.
pub fn dcg(grades: &[f64], k: usize) -> f64 {
    let gain = |(index, grade): (usize, &f64)| (grade.exp2() - 1.0) / (index as f64 + 2.0).log2();
    grades.iter().take(k).enumerate().map(gain).sum()
}

/// DCG over that of the best order of `all` grades, in `[0, 1]`; 1 where nothing is relevant.
///
/// `ranked` are the grades in the order shown, `all` those of every candidate: a list that leaves out a relevant
/// item is worse than one that shows it last.
pub fn ndcg(ranked: &[f64], all: &[f64], k: usize) -> f64 {
    let mut best = all.to_vec();
    best.sort_by(|a, b| b.total_cmp(a));
    let ideal = dcg(&best, k);
    if ideal == 0.0 { 1.0 } else { dcg(ranked, k) / ideal }
}

/// The share of relevant candidates (grade above 0) among the first `k`, in `[0, 1]`; 1 where none is relevant.
pub fn recall(ranked: &[f64], all: &[f64], k: usize) -> f64 {
    let relevant = all.iter().filter(|grade| **grade > 0.0).count();
    let found = ranked.iter().take(k).filter(|grade| **grade > 0.0).count();
    if relevant == 0 { 1.0 } else { found as f64 / relevant as f64 }
}

/// One over the rank of the first relevant item, or 0.
pub fn reciprocal_rank(ranked: &[f64]) -> f64 {
    ranked.iter().position(|grade| *grade > 0.0).map_or(0.0, |index| 1.0 / (index as f64 + 1.0))
}

/// The share of pairs among the first `k` items that are of different categories, in `[0, 1]`; 1 for fewer than two.
pub fn diversity<T: PartialEq>(categories: &[T], k: usize) -> f64 {
    let shown = &categories[..k.min(categories.len())];
    let (mut pairs, mut different) = (0, 0);
    for (index, one) in shown.iter().enumerate() {
        for other in &shown[index + 1..] {
            pairs += 1;
            different += usize::from(one != other);
        }
    }
    if pairs == 0 { 1.0 } else { f64::from(different as u32) / f64::from(pairs) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_close(got: f64, expected: f64) {
        assert!((got - expected).abs() < 1e-9, "{got}, expected {expected}");
    }

    #[test]
    fn by_hand() {
        // Gains 1, 3, 0 at discounts 1, log2 3, 2: 1 + 3 / 1.584963 = 2.892789.
        assert_close(dcg(&[1.0, 2.0, 0.0], 3), 1.0 + 3.0 / 3f64.log2());
        // Best order: 3 + 1 / log2 3.
        let ideal = 3.0 + 1.0 / 3f64.log2();
        assert_close(ndcg(&[1.0, 2.0, 0.0], &[1.0, 2.0, 0.0], 3), (1.0 + 3.0 / 3f64.log2()) / ideal);
        assert_close(ndcg(&[2.0], &[1.0, 2.0, 0.0], 3), 3.0 / ideal);
        assert_close(ndcg(&[], &[0.0], 3), 1.0);
        assert_close(recall(&[0.0, 1.0, 2.0], &[2.0, 1.0, 0.0], 2), 0.5);
        assert_close(reciprocal_rank(&[0.0, 0.0, 2.0]), 1.0 / 3.0);
        // Pairs ab, aa, ba: two of three differ.
        assert_close(diversity(&["a", "b", "a"], 3), 2.0 / 3.0);
        assert_close(diversity(&["a", "a", "b"], 2), 0.0);
    }
}
