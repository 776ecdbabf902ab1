//! How alike two orders are, and how good one is.

/// Normalised discounted cumulative gain at `k`, in `[0, 1]`: gains `2^grade − 1`, discounts `log2(rank + 1)`.
///
/// `scores` order the items, best first; equal scores keep their order. None where no item has a grade above 0 or
/// the lengths differ. Source: Burges et al. 2005.
pub fn ndcg(scores: &[f64], grades: &[f64], k: usize) -> Option<f64> {
    if scores.len() != grades.len() {
        return None;
    }
    let by = |key: &[f64]| {
        let mut order: Vec<usize> = (0..key.len()).collect();
        order.sort_by(|a, b| key[*b].total_cmp(&key[*a]));
        order
    };
    let gain = |order: Vec<usize>| -> f64 {
        let ranked = order.iter().take(k).enumerate();
        ranked.map(|(rank, item)| (grades[*item].exp2() - 1.0) / (rank as f64 + 2.0).log2()).sum()
    };
    let ideal = gain(by(grades));
    (ideal > 0.0).then(|| gain(by(scores)) / ideal)
}

/// Kendall's tau-b, which allows ties. None for fewer than two items or where one side is all ties.
///
/// Takes `O(n²)` steps.
pub fn kendall_tau(a: &[f64], b: &[f64]) -> Option<f64> {
    if a.len() != b.len() {
        return None;
    }
    let (mut agree, mut tied_a, mut tied_b, mut pairs) = (0i64, 0u64, 0u64, 0u64);
    for i in 0..a.len() {
        for j in i + 1..a.len() {
            let (x, y) = (sign(a[i], a[j]), sign(b[i], b[j]));
            pairs += 1;
            agree += x * y;
            tied_a += u64::from(x == 0);
            tied_b += u64::from(y == 0);
        }
    }
    let scale = ((pairs - tied_a) as f64 * (pairs - tied_b) as f64).sqrt();
    (scale > 0.0).then(|| agree as f64 / scale)
}

fn sign(a: f64, b: f64) -> i64 {
    match a.partial_cmp(&b) {
        Some(std::cmp::Ordering::Less) => -1,
        Some(std::cmp::Ordering::Greater) => 1,
        _ => 0,
    }
}

/// Spearman's rank correlation; ties share their mean rank. None where one side does not vary.
pub fn spearman(a: &[f64], b: &[f64]) -> Option<f64> {
    if a.len() != b.len() {
        return None;
    }
    pearson(&ranks(a), &ranks(b))
}

/// Pearson's correlation. None where one side does not vary.
pub fn pearson(a: &[f64], b: &[f64]) -> Option<f64> {
    if a.len() != b.len() || a.len() < 2 {
        return None;
    }
    let (mean_a, mean_b) = (super::mean(a), super::mean(b));
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (x, y) in a.iter().zip(b) {
        let (x, y) = (x - mean_a, y - mean_b);
        ab += x * y;
        aa += x * x;
        bb += y * y;
    }
    (aa > 0.0 && bb > 0.0).then(|| ab / (aa * bb).sqrt())
}

/// Ranks from 1, smallest first; equal values share their mean rank.
pub fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    while start < order.len() {
        let mut end = start + 1;
        while end < order.len() && values[order[end]] == values[order[start]] {
            end += 1;
        }
        // Ranks start + 1 to end share their mean.
        order[start..end].iter().for_each(|item| ranks[*item] = (start + 1 + end) as f64 / 2.0);
        start = end;
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        // Grades 0, 1, 2 ranked 0 first: (0/1 + 1/1.58496 + 3/2) / (3/1 + 1/1.58496) = 2.13093 / 3.63093.
        let value = ndcg(&[3.0, 2.0, 1.0], &[0.0, 1.0, 2.0], 3).unwrap();
        assert!((value - 0.586_883).abs() < 1e-6, "{value}");
        assert_eq!(ndcg(&[1.0, 2.0], &[0.0, 0.0], 2), None);
        // 5 pairs agree, 1 does not.
        assert!(
            (kendall_tau(&[1.0, 2.0, 3.0, 4.0], &[1.0, 2.0, 4.0, 3.0]).unwrap() - 4.0 / 6.0).abs() < 1e-12
        );
        // One tie in a: (2 − 0) / sqrt(2 · 3).
        assert!(
            (kendall_tau(&[1.0, 1.0, 2.0], &[1.0, 2.0, 3.0]).unwrap() - 2.0 / 6.0f64.sqrt()).abs() < 1e-12
        );
        // 1 − 6·2/(4·15).
        assert!((spearman(&[1.0, 2.0, 3.0, 4.0], &[1.0, 2.0, 4.0, 3.0]).unwrap() - 0.8).abs() < 1e-12);
        assert_eq!(ranks(&[2.0, 1.0, 2.0]), [2.5, 1.0, 2.5]);
    }
}
