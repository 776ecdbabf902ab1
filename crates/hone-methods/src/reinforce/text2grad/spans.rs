//! From what a critic says in text to a value for each token.

use serde_json::{Value, json};

/// A critique and what it quotes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dual {
    /// What is said of the answer.
    pub critique: String,
    /// Parts that are good, word for word.
    pub good: Vec<String>,
    /// Parts that are poor.
    pub poor: Vec<String>,
}

/// Parts of an answer, start and end in Unicode scalar values, with their values.
pub type Marked = Vec<(usize, usize, f64)>;

/// Names of the parts of what a critic writes.
const CRITIQUE: &str = "textual_feedback";
const GOOD: &str = "good_spans";
const POOR: &str = "poor_spans";

impl Dual {
    /// The text that a critic learns to write; without `critique_first` the spans alone.
    pub fn write(&self, critique_first: bool) -> String {
        let spans = format!("\"{GOOD}\": {}, \"{POOR}\": {}", json!(self.good), json!(self.poor));
        match critique_first {
            true => format!("{{\"{CRITIQUE}\": {}, {spans}}}", json!(self.critique)),
            false => format!("{{{spans}}}"),
        }
    }

    /// What a critic wrote: JSON, or as much of it as can be made out. `None` without any list of spans.
    pub fn read(text: &str) -> Option<Dual> {
        let (start, end) = (text.find('{'), text.rfind('}'));
        let whole = start.zip(end).and_then(|(start, end)| text.get(start..=end));
        if let Some(Value::Object(said)) = whole.and_then(|whole| serde_json::from_str(whole).ok()) {
            let list = |key: &str| said.get(key).and_then(Value::as_array);
            let quotes = |key: &str| -> Vec<String> {
                list(key).into_iter().flatten().filter_map(|q| Some(q.as_str()?.to_string())).collect()
            };
            list(GOOD).or(list(POOR))?;
            let critique = said.get(CRITIQUE).and_then(Value::as_str).unwrap_or_default().to_string();
            return Some(Dual { critique, good: quotes(GOOD), poor: quotes(POOR) });
        }
        // Cut short, or with a stray sign: quotes between a key and the end of its list.
        let list = |key: &str| -> Option<Vec<String>> {
            let after = text.split_once(&format!("\"{key}\""))?.1.split_once('[')?.1;
            Some(quoted(after))
        };
        let (good, poor) = (list(GOOD), list(POOR));
        if good.is_none() && poor.is_none() {
            return None;
        }
        let critique = text.split_once(&format!("\"{CRITIQUE}\":")).and_then(|(_, after)| {
            let mut words = serde_json::Deserializer::from_str(after).into_iter::<String>();
            words.next()?.ok()
        });
        let (good, poor) = (good.unwrap_or_default(), poor.unwrap_or_default());
        Some(Dual { critique: critique.unwrap_or_default(), good, poor })
    }

    /// Where the quotes stand in `answer`, and how many were not found: 1 for good ones, −1 for poor ones.
    ///
    /// The n-th of equal quotes is the n-th occurrence. A quote that does not occur is looked for among the windows of as
    /// many words: the nearest one, if its likeness is at least `likeness`.
    pub fn marks(&self, answer: &str, likeness: f64) -> (Marked, usize) {
        let (mut marks, mut lost): (Marked, usize) = (vec![], 0);
        let quotes = self.good.iter().map(|quote| (quote, 1.0));
        for (quote, value) in quotes.chain(self.poor.iter().map(|quote| (quote, -1.0))) {
            let quote = quote.trim();
            let taken = |span: &(usize, usize)| {
                marks.iter().any(|&(start, end, other)| (start, end) == *span && other == value)
            };
            let found = occurrences(answer, quote).into_iter().find(|span| !taken(span));
            match found.or_else(|| nearest(answer, quote, likeness)) {
                Some((start, end)) => marks.push((start, end, value)),
                None => lost += 1,
            }
        }
        (marks, lost)
    }
}

/// Strings in quotation marks up to the end of a list.
fn quoted(text: &str) -> Vec<String> {
    let mut out = vec![];
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([',', ' ', '\n']);
        if !rest.starts_with('"') {
            return out;
        }
        let mut strings = serde_json::Deserializer::from_str(rest).into_iter::<String>();
        let Some(Ok(one)) = strings.next() else { return out };
        rest = rest.get(strings.byte_offset()..).unwrap_or_default();
        out.push(one);
    }
}

/// Every place of `quote`, in Unicode scalar values; whole words only, so that `w1` is not found in `w12`.
fn occurrences(answer: &str, quote: &str) -> Vec<(usize, usize)> {
    if quote.is_empty() {
        return vec![];
    }
    let length = quote.chars().count();
    let inside = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    let whole = |at: usize| {
        let (before, after) = (answer[..at].chars().next_back(), answer[at + quote.len()..].chars().next());
        !(inside(before) && inside(quote.chars().next())
            || inside(after) && inside(quote.chars().next_back()))
    };
    let found = answer.match_indices(quote).filter(|(at, _)| whole(*at));
    let place = |at: usize| answer[..at].chars().count();
    found.map(|(at, _)| (place(at), place(at) + length)).collect()
}

/// The window of as many words that is most like `quote`.
fn nearest(answer: &str, quote: &str, likeness: f64) -> Option<(usize, usize)> {
    let words = words(answer);
    let size = quote.split_whitespace().count();
    if size == 0 {
        return None;
    }
    let letters: Vec<char> = answer.chars().collect();
    let wanted: Vec<char> = quote.to_lowercase().chars().collect();
    let mut best: Option<(f64, (usize, usize))> = None;
    for window in words.windows(size) {
        let (Some(first), Some(last)) = (window.first(), window.last()) else { continue };
        let text: String = letters.get(first.0..last.1).unwrap_or_default().iter().collect();
        let alike = ratio(&text.to_lowercase().chars().collect::<Vec<_>>(), &wanted);
        if alike >= likeness && best.is_none_or(|(most, _)| alike > most) {
            best = Some((alike, (first.0, last.1)));
        }
    }
    best.map(|(_, span)| span)
}

/// Start and end of every word, in Unicode scalar values.
fn words(text: &str) -> Vec<(usize, usize)> {
    let (mut out, mut start): (Vec<(usize, usize)>, Option<usize>) = (vec![], None);
    for (at, letter) in text.chars().chain(std::iter::once(' ')).enumerate() {
        match (letter.is_whitespace(), start) {
            (false, None) => start = Some(at),
            (true, Some(first)) => {
                out.push((first, at));
                start = None;
            }
            _ => {}
        }
    }
    out
}

/// How alike two texts are, in [0, 1]: twice the longest common subsequence over both lengths.
fn ratio(a: &[char], b: &[char]) -> f64 {
    let mut row = vec![0usize; b.len() + 1];
    for x in a {
        let mut corner = 0;
        for (at, y) in b.iter().enumerate() {
            let above = row[at + 1];
            row[at + 1] = if x == y { corner + 1 } else { above.max(row[at]) };
            corner = above;
        }
    }
    2.0 * row.last().copied().unwrap_or(0) as f64 / (a.len() + b.len()).max(1) as f64
}

/// `[T]` values of tokens that stand at `places`: that of the spans they touch, the least of several; `neutral` outside of
/// all, 0 for tokens without a place, such as the stop token.
pub fn token_values(marks: &Marked, places: &[Option<(usize, usize)>], neutral: f64) -> Vec<f32> {
    let of_one = |place: &Option<(usize, usize)>| {
        let Some((start, end)) = *place else { return 0.0 };
        let touched = marks.iter().filter(|(from, upto, _)| start < *upto && *from < end);
        touched.map(|(_, _, value)| *value).min_by(f64::total_cmp).unwrap_or(neutral) as f32
    };
    places.iter().map(of_one).collect()
}

/// Multiplies the values from the first that is not 0 on by `1 / (1 + exp(clip(l − 54, −10, 6)))`, `l` counted from it.
pub fn weigh_by_length(values: &mut [f32]) {
    let first = values.iter().position(|value| *value != 0.0).unwrap_or(values.len());
    for (l, value) in values.iter_mut().skip(first).enumerate() {
        *value /= 1.0 + (l as f32 - 54.0).clamp(-10.0, 6.0).exp();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dual(good: &[&str], poor: &[&str]) -> Dual {
        let own = |quotes: &[&str]| quotes.iter().map(|quote| quote.to_string()).collect();
        Dual { critique: "too \"loud\"".into(), good: own(good), poor: own(poor) }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let said = dual(&["hi ann"], &["at \"noon\"", "é"]);
        assert_eq!(Dual::read(&said.write(true)), Some(said.clone()));
        assert_eq!(Dual::read(&said.write(false)), Some(Dual { critique: String::new(), ..said.clone() }));
        assert!(said.write(true).starts_with("{\"textual_feedback\""));
        assert_eq!(Dual::read(&format!("Here: ```{}``` done", said.write(true))), Some(said));
    }

    #[test]
    fn what_is_cut_short_is_read_as_far_as_it_goes() {
        let whole = dual(&["hi ann", "warm"], &["noon"]).write(true);
        let cut = &whole[..whole.find("warm").unwrap() + 2];
        assert_eq!(Dual::read(cut), Some(dual(&["hi ann"], &[])));
        assert_eq!(Dual::read("it is fine"), None);
        assert_eq!(Dual::read("{\"textual_feedback\": \"fine\"}"), None);
    }

    #[test]
    fn quotes_are_found_where_they_stand() {
        let (marks, lost) = dual(&["w1"], &["w2", "w2", "gone away"]).marks("w12 w1 w2 é w2", 0.8);
        assert_eq!(marks, [(4, 6, 1.0), (7, 9, -1.0), (12, 14, -1.0)]);
        assert_eq!(lost, 1);
        // One letter of nine differs: 2 · 8 / 18 = 0.89.
        let (marks, lost) = dual(&[], &["in the bark"]).marks("meet in the park now", 0.8);
        assert_eq!((marks, lost), (vec![(5, 16, -1.0)], 0));
        assert_eq!(dual(&[], &["in the bark"]).marks("meet in the park now", 0.95).1, 1);
    }

    #[test]
    fn tokens_get_the_least_of_their_spans() {
        let marks = vec![(0, 5, 1.0), (3, 8, -1.0)];
        let places = [Some((0, 2)), Some((2, 4)), Some((8, 9)), None];
        assert_eq!(token_values(&marks, &places, 0.0), [1.0, -1.0, 0.0, 0.0]);
        assert_eq!(token_values(&marks, &places, 1.0), [1.0, -1.0, 1.0, 0.0]);
    }

    #[test]
    fn far_values_count_little() {
        let mut values = vec![0.0, 1.0];
        values.resize(56, -1.0);
        weigh_by_length(&mut values);
        // l = 0: 1 / (1 + e^−10); l = 54: ½.
        assert!((values[1] - 0.9999546).abs() < 1e-6 && (values[55] + 0.5).abs() < 1e-6, "{values:?}");
        assert_eq!(values[0], 0.0);
    }
}
