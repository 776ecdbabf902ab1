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

/// Kendall's tau-b, which allows ties. None for fewer than two items, where one side is all ties, or a value is NaN.
///
/// Takes `O(n log n)` steps. Source: Knight 1966.
pub fn kendall_tau(a: &[f64], b: &[f64]) -> Option<f64> {
    if a.len() != b.len() || a.iter().chain(b).any(|value| value.is_nan()) {
        return None;
    }
    // Adding 0 makes one zero of both.
    let mut pairs: Vec<(f64, f64)> = a.iter().zip(b).map(|(x, y)| (x + 0.0, y + 0.0)).collect();
    pairs.sort_unstable_by(|one, two| one.0.total_cmp(&two.0).then(one.1.total_cmp(&two.1)));
    let tied_a = tied(&pairs, |one, two| one.0 == two.0);
    let tied_both = tied(&pairs, |one, two| one == two);
    let mut order: Vec<f64> = pairs.iter().map(|pair| pair.1).collect();
    // Pairs that the sides order differently are those that stand the wrong way round once the first side is sorted.
    let against = sort_counting(&mut order, &mut vec![0.0; b.len()]);
    let tied_b = tied(&order, |one, two| one == two);
    let all = a.len() as u64 * (a.len() as u64).saturating_sub(1) / 2;
    let agree = (all + tied_both) as i64 - (tied_a + tied_b) as i64 - 2 * against as i64;
    let scale = ((all - tied_a) as f64 * (all - tied_b) as f64).sqrt();
    (scale > 0.0).then(|| agree as f64 / scale)
}

/// Pairs of items that are the same.
fn tied<T>(sorted: &[T], same: impl Fn(&T, &T) -> bool) -> u64 {
    sorted.chunk_by(same).map(|run| run.len() as u64 * (run.len() as u64 - 1) / 2).sum()
}

/// Sorts by merging and counts the pairs that were the wrong way round. `room` is as long as `values`.
fn sort_counting(values: &mut [f64], room: &mut [f64]) -> u64 {
    /// Below this a plain insertion is faster.
    const SHORT: usize = 16;
    if values.len() <= SHORT {
        let mut moved = 0;
        for end in 1..values.len() {
            let value = values[end];
            let mut at = end;
            while at > 0 && values[at - 1] > value {
                values[at] = values[at - 1];
                at -= 1;
            }
            values[at] = value;
            moved += (end - at) as u64;
        }
        return moved;
    }
    let middle = values.len() / 2;
    let (left, right) = values.split_at_mut(middle);
    let (left_room, right_room) = room.split_at_mut(middle);
    let mut moved = sort_counting(left, left_room) + sort_counting(right, right_room);
    let (mut i, mut j) = (0, 0);
    for place in room.iter_mut() {
        if j == right.len() || (i < left.len() && left[i] <= right[j]) {
            *place = left[i];
            i += 1;
        } else {
            *place = right[j];
            j += 1;
            moved += (left.len() - i) as u64;
        }
    }
    values.copy_from_slice(room);
    moved
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
        assert_eq!(kendall_tau(&[1.0, f64::NAN], &[1.0, 2.0]), None);
        // Many values with many ties, beside the definition: pairs in one order less those in the other.
        let series = |step: u64| (1..=200u64).map(move |n| (n * n * step % 23) as f64 - 11.0);
        let (a, b): (Vec<f64>, Vec<f64>) =
            (series(7).collect(), series(10).map(|value| -0.0 * value + value).collect());
        let (mut agree, mut a_pairs, mut b_pairs) = (0.0, 0.0f64, 0.0);
        for i in 0..a.len() {
            for j in 0..i {
                let sign = |of: &[f64]| f64::from(i8::from(of[i] > of[j]) - i8::from(of[i] < of[j]));
                agree += sign(&a) * sign(&b);
                a_pairs += sign(&a).abs();
                b_pairs += sign(&b).abs();
            }
        }
        assert!((kendall_tau(&a, &b).unwrap() - agree / (a_pairs * b_pairs).sqrt()).abs() < 1e-12);
        // 1 − 6·2/(4·15).
        assert!((spearman(&[1.0, 2.0, 3.0, 4.0], &[1.0, 2.0, 4.0, 3.0]).unwrap() - 0.8).abs() < 1e-12);
        assert_eq!(ranks(&[2.0, 1.0, 2.0]), [2.5, 1.0, 2.5]);
    }
}
