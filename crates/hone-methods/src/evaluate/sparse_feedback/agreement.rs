//! Ratings and rankings of the same responses: what they agree on.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

/// Which of two responses is preferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    /// The first.
    First,
    /// Neither.
    Equal,
    /// The second.
    Second,
}

impl Choice {
    /// What two ratings say.
    pub fn of_ratings(first: f64, second: f64) -> Choice {
        match first.total_cmp(&second) {
            std::cmp::Ordering::Greater => Choice::First,
            std::cmp::Ordering::Equal => Choice::Equal,
            std::cmp::Ordering::Less => Choice::Second,
        }
    }

    /// What two questions say that show the pair in both orders: agreement, or a tie where the same place is chosen twice.
    /// `swapped` is the choice among the places of the second question.
    pub fn of_both_orders(straight: Choice, swapped: Choice) -> Option<Choice> {
        match (straight, swapped) {
            (Choice::First, Choice::Second) => Some(Choice::First),
            (Choice::Second, Choice::First) => Some(Choice::Second),
            (Choice::First, Choice::First) | (Choice::Second, Choice::Second) => Some(Choice::Equal),
            _ => None,
        }
    }

    /// 1, ½ or 0 for the first response.
    pub fn points(self) -> f64 {
        match self {
            Choice::First => 1.0,
            Choice::Equal => 0.5,
            Choice::Second => 0.0,
        }
    }
}

/// Pairs with both kinds of label: from ratings, from rankings.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Agreement {
    /// One entry per pair.
    pub pairs: Vec<(Choice, Choice)>,
    /// Ranked pairs that lack a rating.
    pub without_ratings: usize,
}

impl Agreement {
    /// Pairs with this label of the ratings and this of the ranking.
    pub fn count(&self, rated: Choice, ranked: Choice) -> usize {
        self.pairs.iter().filter(|pair| **pair == (rated, ranked)).count()
    }

    /// Whether each pair has the same label from both.
    pub fn consistent(&self) -> Vec<bool> {
        self.pairs.iter().map(|(rated, ranked)| rated == ranked).collect()
    }

    /// As [`Agreement::consistent`], without pairs whose ratings are equal.
    pub fn consistent_without_ties(&self) -> Vec<bool> {
        let decided = self.pairs.iter().filter(|(rated, _)| *rated != Choice::Equal);
        decided.map(|(rated, ranked)| rated == ranked).collect()
    }

    /// Whether each pair is decided by one kind of label and not by the other.
    pub fn hedged(&self) -> Vec<bool> {
        self.pairs.iter().map(|(one, other)| (*one == Choice::Equal) != (*other == Choice::Equal)).collect()
    }
}

/// A rated response: instruction with input, response, score.
pub type Rated = (String, String, f64);
/// A ranked pair: instruction with input, both responses, label.
pub type Ranked = (String, String, String, Choice);

/// Joins both on the same responses. What comes twice counts once, as it came first.
pub fn join(rated: &[Rated], ranked: &[Ranked]) -> Agreement {
    let mut scores: HashMap<(&str, &str), f64> = HashMap::new();
    for (instruction, response, score) in rated {
        scores.entry((instruction, response)).or_insert(*score);
    }
    let mut seen = std::collections::HashSet::new();
    let mut agreement = Agreement::default();
    for (instruction, first, second, label) in ranked {
        if !seen.insert((instruction, first, second)) {
            continue;
        }
        let score = |response: &String| scores.get(&(instruction.as_str(), response.as_str())).copied();
        match (score(first), score(second)) {
            (Some(one), Some(other)) => agreement.pairs.push((Choice::of_ratings(one, other), *label)),
            _ => agreement.without_ratings += 1,
        }
    }
    agreement
}

/// The rows of a CSV file without a header. Quoted fields may hold commas, line breaks and doubled quotes.
pub fn csv(text: &str) -> Vec<Vec<String>> {
    let (mut rows, mut row, mut field, mut quoted) = (vec![], vec![], String::new(), false);
    let mut signs = text.chars().peekable();
    while let Some(sign) = signs.next() {
        match (sign, quoted) {
            ('"', true) if signs.peek() == Some(&'"') => {
                signs.next();
                field.push('"');
            }
            ('"', _) => quoted = !quoted,
            (',', false) => row.push(std::mem::take(&mut field)),
            ('\r', false) if signs.peek() == Some(&'\n') => {}
            ('\n', false) => {
                row.push(std::mem::take(&mut field));
                rows.push(std::mem::take(&mut row));
            }
            (sign, _) => field.push(sign),
        }
    }
    if !field.is_empty() || !row.is_empty() {
        row.push(field);
        rows.push(row);
    }
    rows
}

/// Instruction and input as one text; an input that is missing is the text `nan` in the release.
pub fn instruction(instruction: &str, input: &str) -> String {
    match input.trim() {
        "" | "nan" | "NaN" => instruction.trim().to_string(),
        input => format!("{}\n\n{input}", instruction.trim()),
    }
}

/// Rated responses of released rows: instruction, input, response, score. Rows of another shape are left out.
pub fn rated(rows: &[Vec<String>]) -> Vec<Rated> {
    let one = |row: &Vec<String>| match &row[..] {
        [asked, input, response, score] => {
            Some((instruction(asked, input), response.trim().to_string(), score.trim().parse().ok()?))
        }
        _ => None,
    };
    rows.iter().filter_map(one).collect()
}

/// Ranked pairs of released rows: instruction, input, two responses, label. Rows of another shape are left out.
pub fn ranked(rows: &[Vec<String>]) -> Vec<Ranked> {
    let one = |row: &Vec<String>| match &row[..] {
        [asked, input, first, second, label] => {
            let label = match label.trim() {
                "(a)" => Choice::First,
                "(b)" => Choice::Second,
                "equal" => Choice::Equal,
                _ => return None,
            };
            Some((instruction(asked, input), first.trim().to_string(), second.trim().to_string(), label))
        }
        _ => None,
    };
    rows.iter().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_both_protocols() {
        assert_eq!(Choice::of_ratings(5.0, 4.0), Choice::First);
        assert_eq!(Choice::of_both_orders(Choice::First, Choice::Second), Some(Choice::First));
        // The first place twice: the order decides, not the responses.
        assert_eq!(Choice::of_both_orders(Choice::First, Choice::First), Some(Choice::Equal));
        assert_eq!(Choice::of_both_orders(Choice::First, Choice::Equal), None);
    }

    #[test]
    fn quoted_fields_and_doubles() {
        assert_eq!(csv("a,\"b\"\"c,\nd\"\r\ne,f\n"), [vec!["a", "b\"c,\nd"], vec!["e", "f"]]);
        let rate = |response: &str, score| ("q".to_string(), response.to_string(), score);
        let rank = |a: &str, b: &str, label| ("q".to_string(), a.to_string(), b.to_string(), label);
        let rated = [rate("x", 5.0), rate("y", 5.0), rate("z", 3.0), rate("x", 1.0)];
        let ranked = [
            rank("x", "y", Choice::First),
            rank("x", "z", Choice::First),
            rank("x", "z", Choice::Second),
            rank("x", "w", Choice::First),
        ];
        let agreement = join(&rated, &ranked);
        assert_eq!(agreement.pairs, [(Choice::Equal, Choice::First), (Choice::First, Choice::First)]);
        assert_eq!((agreement.without_ratings, agreement.consistent_without_ties()), (1, vec![true]));
        assert_eq!(agreement.hedged(), [true, false]);
    }

    #[test]
    fn the_shared_part_of_the_release() {
        let folder =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/sparse_feedback");
        if !folder.exists() {
            eprintln!("skipped: no {}", folder.display());
            return;
        }
        let read = |name: &str| csv(&std::fs::read_to_string(folder.join(name)).unwrap());
        let agreement = join(&rated(&read("ratings_first60.csv")), &ranked(&read("rankings_first70.csv")));
        // Counted by a script over Python's csv module: 68 of 70 pairs have both ratings, 32 agree.
        let table = [Choice::First, Choice::Equal, Choice::Second].map(|rated| {
            [Choice::Equal, Choice::First, Choice::Second].map(|ranked| agreement.count(rated, ranked))
        });
        assert_eq!(table, [[5, 8, 10], [10, 8, 5], [4, 4, 14]]);
        assert_eq!((agreement.pairs.len(), agreement.without_ratings), (68, 2));
        assert_eq!(agreement.consistent().iter().filter(|same| **same).count(), 32);
    }
}
