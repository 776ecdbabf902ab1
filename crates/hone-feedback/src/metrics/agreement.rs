//! How far judges agree beyond chance.

/// How far apart two marks are for Krippendorff's alpha.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Same or different.
    Nominal,
    /// Ranks: how many marks lie between.
    Ordinal,
    /// Numbers: the squared difference.
    Interval,
}

/// Cohen's kappa of two judges who marked the same items with classes.
///
/// None where nothing was marked or chance alone explains everything (both gave one and the same class).
/// Source: Cohen 1960.
pub fn cohen_kappa<T: Ord>(a: &[T], b: &[T]) -> Option<f64> {
    if a.is_empty() || a.len() != b.len() {
        return None;
    }
    let n = a.len() as f64;
    let observed = a.iter().zip(b).filter(|(x, y)| x == y).count() as f64 / n;
    let mut classes: Vec<&T> = a.iter().chain(b).collect();
    classes.sort();
    classes.dedup();
    let share = |marks: &[T], class: &T| marks.iter().filter(|mark| *mark == class).count() as f64 / n;
    let chance: f64 = classes.iter().map(|class| share(a, class) * share(b, class)).sum();
    (chance < 1.0).then(|| (observed - chance) / (1.0 - chance))
}

/// Krippendorff's alpha over units, each with the marks of those who judged it, in any order.
///
/// Units of one mark say nothing and are left out. None where no unit has two marks, or all marks are the same.
/// Source: Krippendorff, Content Analysis, chapter on reliability.
pub fn krippendorff_alpha<'a>(units: impl IntoIterator<Item = &'a [f64]>, level: Level) -> Option<f64> {
    let mut values: Vec<f64> = Vec::new();
    let mut paired: Vec<&[f64]> = Vec::new();
    for unit in units {
        if unit.len() >= 2 {
            values.extend(unit);
            paired.push(unit);
        }
    }
    let mut classes = values.clone();
    classes.sort_unstable_by(f64::total_cmp);
    classes.dedup();
    if classes.len() < 2 {
        return None;
    }
    // Few classes are found faster from the first one on than by halving.
    let place = |value: f64| match classes.len() {
        0..=16 => classes.iter().take_while(|class| **class < value).count(),
        _ => classes.partition_point(|class| *class < value),
    };
    let places: Vec<usize> = values.iter().map(|value| place(*value)).collect();
    let mut size = vec![0.0f64; classes.len()];
    places.iter().for_each(|place| size[*place] += 1.0);
    // Marks below each class, for ordinal distances.
    let mut below = vec![0.0f64; classes.len() + 1];
    for class in 0..classes.len() {
        below[class + 1] = below[class] + size[class];
    }
    let distance = |a: usize, b: usize| match level {
        Level::Nominal => f64::from(u8::from(a != b)),
        Level::Interval => (classes[a] - classes[b]).powi(2),
        Level::Ordinal => {
            let (low, high) = (a.min(b), a.max(b));
            let between = below[high + 1] - below[low];
            let distance: f64 = between - (size[low] + size[high]) / 2.0;
            distance * distance
        }
    };
    let n = values.len() as f64;
    let mut observed = 0.0;
    let mut counts: Vec<(usize, f64)> = Vec::new();
    let mut rest = places.as_slice();
    for unit in paired {
        let (marks, others) = rest.split_at(unit.len());
        rest = others;
        if let [a, b] = *marks {
            observed += 2.0 * distance(a, b);
            continue;
        }
        // Counting classes first keeps units of many marks cheap.
        counts.clear();
        for &class in marks {
            match counts.iter_mut().find(|(known, _)| *known == class) {
                Some((_, count)) => *count += 1.0,
                None => counts.push((class, 1.0)),
            }
        }
        let pairs: f64 = counts
            .iter()
            .flat_map(|(a, x)| counts.iter().map(move |(b, y)| (*a, *b, x * y)))
            .map(|(a, b, count)| count * distance(a, b))
            .sum();
        observed += pairs / (unit.len() as f64 - 1.0);
    }
    let mut expected = 0.0;
    for a in 0..classes.len() {
        for b in 0..classes.len() {
            expected += size[a] * size[b] * distance(a, b);
        }
    }
    (expected > 0.0).then(|| 1.0 - (n - 1.0) * observed / expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kappa_by_hand() {
        // 20 yes/yes, 5 yes/no, 10 no/yes, 15 no/no: observed 0.7, chance 0.5·0.6 + 0.5·0.4 = 0.5, kappa 0.4.
        let mut a = vec![1; 25];
        a.extend([0; 25]);
        let mut b = vec![1; 20];
        b.extend([0; 5]);
        b.extend([1; 10]);
        b.extend([0; 15]);
        assert!((cohen_kappa(&a, &b).unwrap() - 0.4).abs() < 1e-12);
        assert_eq!(cohen_kappa(&[1, 1], &[1, 1]), None);
    }

    #[test]
    fn alpha_by_hand() {
        // Units (1,1), (1,2): n = 4, sizes 3 and 1. Nominal: observed 2·1/1 = 2 over both orders,
        // expected 2·3·1 = 6: alpha = 1 − 3·2/6 = 0.
        let units: [&[f64]; 3] = [&[1.0, 1.0], &[1.0, 2.0], &[5.0]];
        assert!(krippendorff_alpha(units, Level::Nominal).unwrap().abs() < 1e-12);
        // Units (1,1), (2,2), (3,3) agree fully at every level.
        let units: [&[f64]; 3] = [&[1.0, 1.0], &[2.0, 2.0], &[3.0, 3.0]];
        for level in [Level::Nominal, Level::Ordinal, Level::Interval] {
            assert!((krippendorff_alpha(units, level).unwrap() - 1.0).abs() < 1e-12);
        }
        // Units (1,1), (1,3): interval: observed 2·4 = 8; expected 2·3·1·4 = 24: alpha = 1 − 3·8/24 = 0.
        let units: [&[f64]; 2] = [&[1.0, 1.0], &[1.0, 3.0]];
        assert!(krippendorff_alpha(units, Level::Interval).unwrap().abs() < 1e-12);
        assert_eq!(krippendorff_alpha([[2.0, 2.0].as_slice()], Level::Nominal), None);
    }
}
