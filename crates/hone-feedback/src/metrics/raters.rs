//! How reliable each source is: Dawid-Skene for classes, Bradley-Terry for comparisons.

/// One mark: an item, a judge and a class, each counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The item.
    pub item: u32,
    /// The judge.
    pub rater: u32,
    /// The class given.
    pub class: u16,
}

/// What [`dawid_skene`] finds.
#[derive(Debug, Clone, PartialEq)]
pub struct DawidSkene {
    /// Share of each class among the items, `[C]`.
    pub classes: Vec<f64>,
    /// Per judge, how often class `t` is called `c`: `[R][t · C + c]`, each row sums to 1.
    pub confusion: Vec<Vec<f64>>,
    /// Per item, the probability of each class, `[I][C]`.
    pub items: Vec<Vec<f64>>,
}

impl DawidSkene {
    /// The chance that a judge gives the right class of an item drawn from the log.
    pub fn reliability(&self, rater: usize) -> f64 {
        let count = self.classes.len();
        let right = |class: usize| self.classes[class] * self.confusion[rater][class * count + class];
        (0..count).map(right).sum()
    }
}

/// True classes and judges' confusion by expectation-maximisation, started from the majority.
///
/// `rounds` bounds the steps. Marks whose numbers are out of range are left out. Confusions carry one pseudo-mark
/// spread over the classes, so that a judge of few marks is not taken for perfect. Source: Dawid & Skene 1979.
pub fn dawid_skene(marks: &[Mark], items: usize, raters: usize, classes: usize, rounds: usize) -> DawidSkene {
    let known = |mark: &&Mark| {
        (mark.item as usize) < items && (mark.rater as usize) < raters && usize::from(mark.class) < classes
    };
    let marks: Vec<&Mark> = marks.iter().filter(known).collect();
    let mut belief = vec![vec![0.0; classes]; items];
    for mark in &marks {
        belief[mark.item as usize][usize::from(mark.class)] += 1.0;
    }
    belief.iter_mut().for_each(|item| normalise(item));
    let mut shares = vec![0.0; classes];
    let mut confusion = vec![vec![0.0; classes * classes]; raters];
    for _ in 0..rounds.max(1) {
        shares.iter_mut().for_each(|share| *share = 0.0);
        for item in &belief {
            shares.iter_mut().zip(item).for_each(|(share, belief)| *share += belief);
        }
        normalise(&mut shares);
        let prior = 1.0 / classes as f64;
        confusion.iter_mut().flatten().for_each(|cell| *cell = prior);
        for mark in &marks {
            for truth in 0..classes {
                confusion[mark.rater as usize][truth * classes + usize::from(mark.class)] +=
                    belief[mark.item as usize][truth];
            }
        }
        confusion.iter_mut().flat_map(|judge| judge.chunks_mut(classes)).for_each(normalise);
        // Sums of logs, since an item of many marks would underflow a product.
        let mut logs = vec![vec![0.0; classes]; items];
        logs.iter_mut().for_each(|item| {
            item.iter_mut().zip(&shares).for_each(|(log, share)| *log = share.max(1e-300).ln());
        });
        for mark in &marks {
            for truth in 0..classes {
                let chance = confusion[mark.rater as usize][truth * classes + usize::from(mark.class)];
                logs[mark.item as usize][truth] += chance.max(1e-300).ln();
            }
        }
        let mut moved = 0.0f64;
        for (item, logs) in belief.iter_mut().zip(logs) {
            let highest = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let mut next: Vec<f64> = logs.iter().map(|log| (log - highest).exp()).collect();
            normalise(&mut next);
            for (old, new) in item.iter_mut().zip(next) {
                moved = moved.max((*old - new).abs());
                *old = new;
            }
        }
        if moved < 1e-8 {
            break;
        }
    }
    DawidSkene { classes: shares, confusion, items: belief }
}

fn normalise(values: &mut [f64]) {
    let sum: f64 = values.iter().sum();
    let count = values.len() as f64;
    values.iter_mut().for_each(|value| *value = if sum > 0.0 { *value / sum } else { 1.0 / count });
}

/// One comparison: the judge, the item that won and the one that lost, each counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Win {
    /// The judge.
    pub rater: u32,
    /// The item preferred.
    pub winner: u32,
    /// The other.
    pub loser: u32,
}

/// Strengths of items from who beat whom: the log-odds of winning against an item of strength 0, with mean 0.
///
/// `prior` pseudo-wins and -losses of every item against one of strength 0 keep the unbeaten finite; 0.1 is usual.
/// Minorise-maximise steps until nothing moves by 1e-9. Source: Bradley & Terry 1952; Hunter 2004.
pub fn bradley_terry(wins: &[Win], items: usize, prior: f64) -> Vec<f64> {
    let mut won = vec![prior; items];
    let mut strength = vec![1.0f64; items];
    let known =
        |win: &&Win| (win.winner as usize) < items && (win.loser as usize) < items && win.winner != win.loser;
    let wins: Vec<&Win> = wins.iter().filter(known).collect();
    wins.iter().for_each(|win| won[win.winner as usize] += 1.0);
    for _ in 0..1000 {
        let mut weight: Vec<f64> = strength.iter().map(|own| 2.0 * prior / (own + 1.0)).collect();
        for win in &wins {
            let (a, b) = (win.winner as usize, win.loser as usize);
            let share = 1.0 / (strength[a] + strength[b]);
            weight[a] += share;
            weight[b] += share;
        }
        let mut moved = 0.0f64;
        for item in 0..items {
            if weight[item] > 0.0 && won[item] > 0.0 {
                let next = (won[item] / weight[item]).clamp(1e-12, 1e12);
                moved = moved.max((next.ln() - strength[item].ln()).abs());
                strength[item] = next;
            }
        }
        if moved < 1e-9 {
            break;
        }
    }
    let mut logs: Vec<f64> = strength.iter().map(|own| own.ln()).collect();
    let mean = super::mean(&logs);
    logs.iter_mut().for_each(|log| *log -= mean);
    logs
}

/// Per judge, how sharply it tells items apart: the factor on the difference of strengths in
/// `P(winner) = σ(sharpness · (s_winner − s_loser))`. 1 is the crowd's, 0 is chance, below 0 is reversed.
///
/// Strengths come from all judges ([`bradley_terry`]); each judge's factor is then fitted by Newton steps with a
/// weak normal prior of mean 1 and variance 4. Source: the rater-quality form of Chen et al. 2013 (Crowd-BT).
pub fn rater_sharpness(wins: &[Win], items: usize, raters: usize) -> Vec<f64> {
    const PRECISION: f64 = 0.25;
    let strength = bradley_terry(wins, items, 0.1);
    let mut gaps = vec![Vec::new(); raters];
    for win in wins {
        let (winner, loser) = (win.winner as usize, win.loser as usize);
        if winner < items && loser < items && (win.rater as usize) < raters {
            gaps[win.rater as usize].push(strength[winner] - strength[loser]);
        }
    }
    let fit = |gaps: Vec<f64>| {
        let mut sharpness = 1.0f64;
        for _ in 0..50 {
            let (mut slope, mut curve) = (PRECISION * (1.0 - sharpness), PRECISION);
            for gap in &gaps {
                let win = 1.0 / (1.0 + (-sharpness * gap).exp());
                slope += (1.0 - win) * gap;
                curve += win * (1.0 - win) * gap * gap;
            }
            // The log-posterior is concave; a bounded step keeps Newton from overshooting far from the top.
            let step = (slope / curve).clamp(-1.0, 1.0);
            sharpness += step;
            if step.abs() < 1e-10 {
                break;
            }
        }
        sharpness
    };
    gaps.into_iter().map(fit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_careless_judge_is_found() {
        // Three judges on 60 items whose class is the item's parity; judge 2 is wrong on every third item.
        let mut marks = Vec::new();
        for item in 0..60u32 {
            let truth = (item % 2) as u16;
            for rater in 0..3 {
                let class = if rater == 2 && item % 3 == 0 { 1 - truth } else { truth };
                marks.push(Mark { item, rater, class });
            }
        }
        let found = dawid_skene(&marks, 60, 3, 2, 100);
        for (item, belief) in found.items.iter().enumerate() {
            assert!(belief[item % 2] > 0.99, "item {item}: {belief:?}");
        }
        assert!(found.reliability(0) > 0.95 && found.reliability(1) > 0.95);
        // 20 of 60 wrong: 2/3, and the pseudo-mark moves it by less than 0.02.
        assert!((found.reliability(2) - 2.0 / 3.0).abs() < 0.02, "{}", found.reliability(2));
    }

    #[test]
    fn strengths_are_log_odds() {
        // 3 wins against 1 without a prior: the log-odds is ln 3, split around 0.
        let win = |winner, loser| Win { rater: 0, winner, loser };
        let strength = bradley_terry(&[win(0, 1), win(0, 1), win(0, 1), win(1, 0)], 2, 0.0);
        assert!((strength[0] - strength[1] - 3.0f64.ln()).abs() < 1e-7, "{strength:?}");
        let unbeaten = bradley_terry(&[win(0, 1)], 2, 0.1);
        assert!(unbeaten[0].is_finite() && unbeaten[0] > unbeaten[1]);
    }

    #[test]
    fn a_reversed_judge_is_found() {
        let mut wins = Vec::new();
        for a in 0..6u32 {
            for b in a + 1..6 {
                for rater in 0..4 {
                    let (winner, loser) = if rater == 3 { (a, b) } else { (b, a) };
                    wins.push(Win { rater, winner, loser });
                }
            }
        }
        let sharpness = rater_sharpness(&wins, 6, 4);
        assert!(sharpness[0] > 0.5 && sharpness[3] < 0.0, "{sharpness:?}");
    }
}
