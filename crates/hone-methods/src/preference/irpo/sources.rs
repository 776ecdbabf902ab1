//! Candidate lists from the tables that recommenders and question answering keep: which items, how relevant.

use hone_feedback::{Form, Record};
use rand::Rng;

/// Most relevant items of a recommendation list: relevance 2, 1, and items in all.
const RECOMMENDED: (usize, usize, usize) = (3, 5, 20);
/// Relevant items of a question's list, and items in all.
const ANSWERS: (usize, usize) = (3, 10);
/// Likeness in percent above which a suggestion is taken for one of the true items.
const SAME: f64 = 85.0;

/// A list of 20: up to 3 of `truth` (relevance 2, the commonest first), up to 5 of `suggested` that are unlike them
/// (relevance 1), the rest drawn from `corpus`, items with how often each occurs, in proportion to that (relevance 0).
/// Fewer where the corpus is small; no item stands twice.
pub fn recommendation(
    id: &str,
    context: &str,
    truth: &[String],
    suggested: &[String],
    corpus: &[(String, f64)],
    rng: &mut impl Rng,
) -> Record {
    let often = |item: &String| corpus.iter().find(|(name, _)| name == item).map_or(0.0, |(_, count)| *count);
    let (top, some, size) = RECOMMENDED;
    let mut best = distinct(truth);
    best.sort_by(|a, b| often(b).total_cmp(&often(a)));
    best.truncate(top);
    let unlike = |item: &&String| truth.iter().all(|known| similarity(known, item) <= SAME);
    let next: Vec<String> = distinct(suggested).iter().filter(unlike).take(some).cloned().collect();
    let mut pool: Vec<&(String, f64)> = corpus
        .iter()
        .filter(|(name, count)| *count > 0.0 && !truth.contains(name) && !next.contains(name))
        .collect();
    let mut rest = vec![];
    while best.len() + next.len() + rest.len() < size && !pool.is_empty() {
        let mut left = rng.random::<f64>() * pool.iter().map(|(_, count)| count).sum::<f64>();
        let drawn = pool.iter().position(|(_, count)| {
            left -= count;
            left < 0.0
        });
        rest.push(pool.remove(drawn.unwrap_or(pool.len() - 1)).0.clone());
    }
    graded(id, context, &[(&best, 2.0), (&next, 1.0), (&rest, 0.0)], 2.0)
}

/// A list of at most 10: up to 3 of `right` (relevance 1), the rest of `wrong` (relevance 0). The published code repeats
/// wrong items where there are too few; equal items would be one, so the list is shorter instead.
pub fn question(id: &str, question: &str, right: &[String], wrong: &[String]) -> Record {
    let right: Vec<String> = distinct(right).into_iter().take(ANSWERS.0).collect();
    let others = distinct(wrong).into_iter().filter(|item| !right.contains(item));
    let wrong: Vec<String> = others.take(ANSWERS.1 - right.len()).collect();
    graded(id, question, &[(&right, 1.0), (&wrong, 0.0)], 1.0)
}

fn graded(id: &str, context: &str, parts: &[(&[String], f64)], top: f64) -> Record {
    let mut record = Record::new(id, context);
    for (items, relevance) in parts {
        for item in *items {
            let on = format!("{}", record.responses.len());
            let rating = Form::Rating { on: on.clone(), value: *relevance, scale: Some([0.0, top]) };
            record = record.respond(on, item.as_str()).say(rating);
        }
    }
    record
}

fn distinct(items: &[String]) -> Vec<String> {
    let mut kept: Vec<String> = vec![];
    items.iter().filter(|item| !item.trim().is_empty()).for_each(|item| {
        if !kept.contains(item) {
            kept.push(item.clone());
        }
    });
    kept
}

/// Likeness of two texts in percent: twice their longest common subsequence over their lengths together.
pub fn similarity(one: &str, other: &str) -> f64 {
    let (a, b): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    if a.is_empty() && b.is_empty() {
        return 100.0;
    }
    let mut row = vec![0usize; b.len() + 1];
    for x in &a {
        let mut corner = 0;
        for (at, y) in b.iter().enumerate() {
            let above = row[at + 1];
            row[at + 1] = if x == y { corner + 1 } else { above.max(row[at]) };
            corner = above;
        }
    }
    200.0 * row[b.len()] as f64 / (a.len() + b.len()) as f64
}

/// The texts of a list as Python prints it, such as `['a', "it's"]`; `None` for anything else.
pub fn python_list(text: &str) -> Option<Vec<String>> {
    let mut rest = text.trim().strip_prefix('[')?.strip_suffix(']')?.trim();
    let mut items = vec![];
    while !rest.is_empty() {
        let quote = rest.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
        let (mut item, mut escaped, mut end) = (String::new(), false, None);
        for (at, c) in rest.char_indices().skip(1) {
            match (escaped, c) {
                (true, 'n') => item.push('\n'),
                (true, c) => item.push(c),
                (false, '\\') => {}
                (false, c) if c == quote => {
                    end = Some(at + 1);
                    break;
                }
                (false, c) => item.push(c),
            }
            escaped = !escaped && c == '\\';
        }
        items.push(item);
        rest = rest.get(end?..)?.trim_start();
        rest = match rest.strip_prefix(',') {
            Some(after) => after.trim_start(),
            None if rest.is_empty() => rest,
            None => return None,
        };
    }
    Some(items)
}

#[cfg(test)]
mod tests {
    use hone_nn::train::seed::rng;

    use super::*;

    fn texts(items: &[&str]) -> Vec<String> {
        items.iter().map(|item| (*item).to_string()).collect()
    }

    #[test]
    fn python_lists_are_read() {
        let read = python_list("['Monsters, Inc. (2001)', \"It's\", 'a\\'b']").unwrap();
        assert_eq!(read, ["Monsters, Inc. (2001)", "It's", "a'b"]);
        assert_eq!(python_list("[]"), Some(vec![]));
        assert_eq!(python_list("['a' 'b']"), None);
        assert_eq!(python_list("['a"), None);
        assert_eq!(python_list("nothing"), None);
    }

    #[test]
    fn likeness_by_hand() {
        // Common subsequence "acd" of "abcd" and "acd": 2 · 3 / 7.
        assert!((similarity("abcd", "acd") - 600.0 / 7.0).abs() < 1e-9);
        assert_eq!(similarity("ab", "cd"), 0.0);
    }

    #[test]
    fn recommendation_lists_have_three_grades() {
        let corpus: Vec<(String, f64)> =
            (0..30).map(|n| (format!("item number {n:02}x"), n as f64)).collect();
        let truth = texts(&["item number 03x", "item number 09x", "b", "item number 20x"]);
        // The first is all but one of the true items; "quite other" is none of them.
        let suggested = texts(&["item number 09", "quite other", "quite other"]);
        let record = recommendation("1", "c", &truth, &suggested, &corpus, &mut rng(1, "draw"));
        let items: Vec<_> = record.responses.iter().map(|r| r.content.text().into_owned()).collect();
        assert_eq!(items.len(), 20);
        assert_eq!(items[..4], ["item number 20x", "item number 09x", "item number 03x", "quite other"]);
        // Item 0 never occurs, and a true item beyond the third is no wrong one.
        assert!(!items.contains(&"item number 00x".to_string()) && !items.contains(&"b".to_string()));
        let distinct: std::collections::HashSet<_> = items.iter().collect();
        assert_eq!(distinct.len(), 20);
    }
}
