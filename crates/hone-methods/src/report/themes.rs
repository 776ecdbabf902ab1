//! What people write about: words that one side of a log uses more than the other.
//!
//! The log-odds ratio with an informative Dirichlet prior of Monroe, Colaresi and Quinn, "Fightin' Words", Political
//! Analysis 16(4), 2008, section 3.5: the prior pulls each term towards its share of the pooled text, in proportion
//! to how much it says, so frequent words of no side score low and rare ones do not score high by luck. No list of
//! stop words is needed, in any language.

use std::collections::{HashMap, HashSet};

use hone_feedback::convert::{Losses, pairs};
use hone_feedback::{Content, Feedback, Form, Record};
use serde::{Deserialize, Serialize};

use super::text::headline;
use super::words::{Words, folded};

/// The contrasts found in a log.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Themes {
    /// Most telling first; only those with words on both sides.
    pub contrasts: Vec<Contrast>,
}

/// One side's words against the other's.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Contrast {
    /// Names it within the page: `comments`, `responses`.
    pub id: String,
    /// As in `Complaints against praise`.
    pub title: String,
    /// Terms that both sides hold often enough to be compared.
    pub tested: u64,
    /// One side.
    pub left: Side,
    /// The other.
    pub right: Side,
}

/// One side of a contrast.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Side {
    /// As in `complaints`.
    pub name: String,
    /// Texts.
    pub texts: u64,
    /// Words in them.
    pub words: u64,
    /// Terms it uses more than the other side, highest z first.
    pub terms: Vec<Term>,
    /// A text for each of the first few terms.
    pub quotes: Vec<Quote>,
}

/// A word or a pair of words.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Term {
    /// The term, in lower case.
    pub term: String,
    /// The log-odds ratio divided by its standard error; above 0.
    pub z: f64,
    /// The log-odds ratio, nats.
    pub log_odds: f64,
    /// How often this side uses it.
    pub here: u64,
    /// How often the other side does.
    pub there: u64,
    /// Texts of this side that hold it.
    pub texts: u64,
}

/// A term in its place.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Quote {
    /// The term.
    pub term: String,
    /// A text of the side that holds it, cut.
    pub text: String,
}

/// Settings of [`ThemeCounter`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ThemeSettings {
    /// How much the prior weighs, in sides: 1 is as many words as a side has on average. Above 0.
    pub prior: f64,
    /// A term is compared if both sides together use it this often.
    pub least_count: u64,
    /// A term is shown if this many texts of its side hold it: one text that repeats a word is no theme.
    pub least_texts: u64,
    /// A term is shown if its z is at least this. 1.96: at most 1 in 40 by chance on each side.
    pub least_z: f64,
    /// Terms shown per side.
    pub shown: usize,
}

impl Default for ThemeSettings {
    fn default() -> Self {
        ThemeSettings { prior: 1.0, least_count: 5, least_texts: 3, least_z: 1.96, shown: 12 }
    }
}

/// Counts terms record by record. Memory grows with the vocabulary, up to a bound, never with the log.
#[derive(Debug, Default)]
pub struct ThemeCounter {
    settings: ThemeSettings,
    words: Words,
    /// Complaints against praise: words of people.
    comments: Counts,
    /// Preferred against rejected: words of models.
    responses: Counts,
    /// Words of people, whatever they think, against words of models.
    voices: Counts,
}

/// Counts of one contrast.
#[derive(Debug, Default)]
struct Counts {
    terms: HashMap<u64, [Count; 2]>,
    texts: [u64; 2],
    /// Words and pairs of words per side.
    totals: [[u64; 2]; 2],
    /// Short texts kept for quotes.
    kept: [Vec<String>; 2],
}

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    times: u32,
    texts: u32,
}

/// Pairs of words kept per contrast before those seen once are dropped: some 100 MB.
const MOST_TERMS: usize = 2_000_000;
/// Texts kept per side for quotes.
const KEPT: usize = 400;
/// Scalar values of each that are kept.
const LONGEST_KEPT: usize = 600;
/// Scalar values of a quote.
const QUOTED: usize = 140;
/// Quotes per side.
const QUOTES: usize = 3;
/// Fewer texts than this on a side are no ground for a contrast.
const LEAST_SIDE: u64 = 5;

impl ThemeCounter {
    /// A counter that has seen nothing.
    pub fn new(settings: ThemeSettings) -> Self {
        ThemeCounter { settings, ..ThemeCounter::default() }
    }

    /// Counts the words of one record.
    pub fn add(&mut self, record: &Record) {
        for item in &record.feedback {
            let Some(words) = item.words().filter(|words| !words.trim().is_empty()) else { continue };
            let terms = self.words.terms(words);
            self.voices.add(0, &terms, words);
            match leaning(record, item) {
                Some(false) => self.comments.add(0, &terms, words),
                Some(true) => self.comments.add(1, &terms, words),
                None => {}
            }
        }
        for response in &record.responses {
            let text = response.content.text();
            let terms = self.words.terms(&text);
            self.voices.add(1, &terms, &text);
        }
        // A response of several pairs counts once on each side.
        let mut seen: HashSet<(*const Content, usize)> = HashSet::new();
        for pair in pairs(record, &mut Losses::default()) {
            for (side, content) in [pair.chosen, pair.rejected].into_iter().enumerate() {
                if seen.insert((std::ptr::from_ref(content), side)) {
                    let text = content.text();
                    let terms = self.words.terms(&text);
                    self.responses.add(side, &terms, &text);
                }
            }
        }
    }

    /// The contrasts.
    pub fn finish(&self) -> Themes {
        let found = |counts: &Counts, id: &str, title: &str, names: [&str; 2]| {
            let enough = counts.texts.iter().all(|texts| *texts >= LEAST_SIDE);
            enough.then(|| self.contrast(counts, id, title, names))
        };
        let comments =
            found(&self.comments, "comments", "Complaints against praise", ["complaints", "praise"]);
        let responses = found(
            &self.responses,
            "responses",
            "Preferred against rejected answers",
            ["preferred answers", "rejected answers"],
        );
        // Words about unmarked answers still tell something, if only how they differ from the answers' own.
        let voices = match comments {
            Some(_) => None,
            None => found(
                &self.voices,
                "voices",
                "What people write, against the answers",
                ["comments", "answers"],
            ),
        };
        Themes { contrasts: [comments, voices, responses].into_iter().flatten().collect() }
    }

    fn contrast(&self, counts: &Counts, id: &str, title: &str, names: [&str; 2]) -> Contrast {
        let settings = &self.settings;
        let mut tested = 0;
        let mut terms: [Vec<(u64, Term)>; 2] = Default::default();
        for (key, count) in &counts.terms {
            let times = count.map(|c| u64::from(c.times));
            if times[0] + times[1] < settings.least_count {
                continue;
            }
            tested += 1;
            let totals = counts.totals.map(|of_side| of_side[Words::order(*key)]);
            let (log_odds, z) = log_odds_ratio(times, totals, settings.prior);
            let side = usize::from(z < 0.0);
            if z.abs() >= settings.least_z && u64::from(count[side].texts) >= settings.least_texts {
                terms[side].push((
                    *key,
                    Term {
                        term: String::new(),
                        z: z.abs(),
                        log_odds: log_odds.abs(),
                        here: times[side],
                        there: times[1 - side],
                        texts: u64::from(count[side].texts),
                    },
                ));
            }
        }
        let sides = [0, 1].map(|side| {
            let found = &mut terms[side];
            // The key settles ties, so that the same log gives the same page.
            found.sort_by(|(a, x), (b, y)| y.z.total_cmp(&x.z).then(a.cmp(b)));
            let all: Vec<(u64, u64)> = found.iter().map(|(key, term)| (*key, term.here)).collect();
            found.retain(|(key, term)| !said_by_another(*key, term.here, &all));
            found.truncate(settings.shown);
            let terms: Vec<Term> =
                found.drain(..).map(|(key, term)| Term { term: self.words.name(key), ..term }).collect();
            Side {
                name: names[side].to_owned(),
                texts: counts.texts[side],
                words: counts.totals[side][0],
                quotes: quotes(&terms, &counts.kept[side]),
                terms,
            }
        });
        let [left, right] = sides;
        Contrast { id: id.to_owned(), title: title.to_owned(), tested, left, right }
    }
}

impl Counts {
    /// Counts a text's terms for `side`.
    fn add(&mut self, side: usize, terms: &[u64], text: &str) {
        if terms.is_empty() {
            return;
        }
        self.texts[side] += 1;
        let mut sorted = terms.to_vec();
        sorted.sort_unstable();
        for same in sorted.chunk_by(|a, b| a == b) {
            let count = &mut self.terms.entry(same[0]).or_default()[side];
            count.times = count.times.saturating_add(same.len() as u32);
            count.texts = count.texts.saturating_add(1);
            self.totals[side][Words::order(same[0])] += same.len() as u64;
        }
        if self.kept[side].len() < KEPT {
            self.kept[side].push(text.chars().take(LONGEST_KEPT).collect());
        }
        if self.terms.len() > MOST_TERMS {
            self.terms.retain(|_, sides| sides.iter().any(|side| side.times > 1));
        }
    }
}

/// The log-odds ratio of a term between two sides, nats, and its z-score; above 0 on the first side.
///
/// `times` and `totals` are the term's and all terms' counts per side; `prior` is α₀ as a multiple of the mean total.
/// Monroe et al. 2008, equations 16, 19, 22, with the prior of the term `α₀` times its share of both sides together.
pub fn log_odds_ratio(times: [u64; 2], totals: [u64; 2], prior: f64) -> (f64, f64) {
    let [y, n] = [times, totals].map(|pair| pair.map(|count| count as f64));
    let mass = prior * (n[0] + n[1]) / 2.0;
    let term = mass * (y[0] + y[1]) / (n[0] + n[1]);
    let log_odds = |side: usize| ((y[side] + term) / (n[side] + mass - y[side] - term)).ln();
    let difference = log_odds(0) - log_odds(1);
    let variance = 1.0 / (y[0] + term) + 1.0 / (y[1] + term);
    let z = difference / variance.sqrt();
    // Nothing counted, or one term only: no side uses it more.
    if z.is_finite() { (difference, z) } else { (0.0, 0.0) }
}

/// Whether the words of `item` are about something good. None: it cannot be told.
fn leaning(record: &Record, item: &Feedback) -> Option<bool> {
    if let Some(own) = mark(item) {
        return Some(own);
    }
    match &item.form {
        // Whoever corrects found something wrong.
        Form::Edit { .. } => return Some(false),
        Form::Rule { .. } | Form::Comparison { .. } | Form::Ranking { .. } => return None,
        _ => {}
    }
    let on = item.form.on().or(match record.responses.as_slice() {
        [only] => Some(only.id.as_str()),
        _ => None,
    })?;
    let marks = record.feedback.iter().filter(|other| item.by.is_none() || other.by == item.by);
    let balance: i32 = marks
        .map(|other| match &other.form {
            Form::Comparison { better, .. } if better == on => 1,
            Form::Comparison { worse, .. } if worse == on => -1,
            form if form.on() == Some(on) => mark(other).map_or(0, |good| if good { 1 } else { -1 }),
            _ => 0,
        })
        .sum();
    (balance != 0).then_some(balance > 0)
}

/// What a mark says by itself. None: it is none, or lies in the middle.
fn mark(item: &Feedback) -> Option<bool> {
    let side = |value: f64| (value != 0.0 && !value.is_nan()).then_some(value > 0.0);
    match &item.form {
        Form::Thumb { value, .. } => Some(*value),
        Form::Rating { value, scale: Some([low, high]), .. } => side(value - (low + high) / 2.0),
        Form::Span { value: Some(value), .. } => side(*value),
        Form::Step { correct, .. } => Some(*correct),
        Form::Outcome { passed, .. } => Some(*passed),
        _ => None,
    }
}

/// Whether another of the terms in `all`, each with its count, says the same as `key` and says it better.
///
/// A word that hardly occurs but in a pair of two telling words is said by the pair (`at once`); a pair of a telling
/// word and one of no side (`is clear`) is said by the word.
fn said_by_another(key: u64, times: u64, all: &[(u64, u64)]) -> bool {
    let telling = |pair: u64| all.iter().filter(move |(word, _)| Words::holds(pair, *word));
    let same = |pair: u64, word: u64| pair as f64 >= 0.8 * word as f64;
    if Words::order(key) == 0 {
        all.iter().any(|(pair, of_pair)| {
            Words::holds(*pair, key) && same(*of_pair, times) && telling(*pair).count() == 2
        })
    } else {
        telling(key).count() == 1 && telling(key).any(|(_, of_word)| same(times, *of_word))
    }
}

/// A kept sentence for each of the first terms, none twice.
fn quotes(terms: &[Term], kept: &[String]) -> Vec<Quote> {
    let mut out: Vec<Quote> = Vec::new();
    for term in terms {
        let wanted = format!(" {} ", term.term);
        let sentences =
            kept.iter().flat_map(|text| text.split_inclusive(['.', '!', '?', '\n', '。']).map(str::trim));
        // A sentence that is nothing but the term shows no use of it.
        let mut holding = sentences.filter(|sentence| {
            let words = folded(sentence);
            words != term.term && format!(" {words} ").contains(&wanted)
        });
        let fresh = holding.find(|sentence| out.iter().all(|quote| quote.text != headline(sentence, QUOTED)));
        if let Some(sentence) = fresh {
            out.push(Quote { term: term.term.clone(), text: headline(sentence, QUOTED) });
        }
        if out.len() == QUOTES {
            break;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_odds_by_hand() {
        // y = 6 of 10 and 2 of 10, prior 1: α₀ = 10, α = 10 · 8/20 = 4.
        // ln(10/(20 − 10)) − ln(6/(20 − 6)) = 0 − ln(6/14) = 0.847298; variance 1/10 + 1/6 = 0.266667;
        // z = 0.847298 / 0.516398 = 1.640786.
        let (ratio, z) = log_odds_ratio([6, 2], [10, 10], 1.0);
        assert!((ratio - 0.847_298).abs() < 1e-6, "{ratio}");
        assert!((z - 1.640_786).abs() < 1e-6, "{z}");
        let (back, z_back) = log_odds_ratio([2, 6], [10, 10], 1.0);
        assert!((back + ratio).abs() < 1e-12 && (z_back + z).abs() < 1e-12);
    }

    #[test]
    fn sides_of_different_size() {
        // y = 3 of 30 and 1 of 10: the same share, so α = α₀/10 keeps both at it: no difference.
        let (ratio, z) = log_odds_ratio([3, 1], [30, 10], 1.0);
        assert!(ratio.abs() < 1e-12 && z.abs() < 1e-12);
        assert_eq!(log_odds_ratio([0, 0], [0, 0], 1.0), (0.0, 0.0));
        assert_eq!(log_odds_ratio([4, 4], [4, 4], 1.0), (0.0, 0.0));
    }

    #[test]
    fn a_common_word_of_no_side_scores_below_a_rarer_one_of_one_side() {
        let common = log_odds_ratio([520, 480], [10_000, 10_000], 1.0).1;
        let telling = log_odds_ratio([30, 2], [10_000, 10_000], 1.0).1;
        let lucky = log_odds_ratio([2, 0], [10_000, 10_000], 1.0).1;
        assert!(telling > 2.5 && common < 1.2 && lucky < 1.2, "{common} {telling} {lucky}");
    }

    fn rated(id: usize, answer: &str, good: bool, words: &str) -> Record {
        let mark = Form::Thumb { on: "a".into(), value: good };
        Record::new(format!("r{id}"), "q").respond("a", answer).say(Feedback::from(mark).with_text(words))
    }

    #[test]
    fn complaints_and_praise_are_told_apart() {
        let mut counter = ThemeCounter::new(ThemeSettings::default());
        for k in 0..12 {
            counter.add(&rated(k, "an answer", false, "The answer is much too long for me"));
            counter.add(&rated(100 + k, "an answer", true, "The answer is clear and kind to me"));
        }
        let themes = counter.finish();
        let contrast = &themes.contrasts[0];
        assert_eq!(contrast.id, "comments");
        assert_eq!((contrast.left.texts, contrast.left.words), (12, 12 * 8));
        let words = |side: &Side| side.terms.iter().map(|t| t.term.clone()).collect::<Vec<_>>();
        let (bad, good) = (words(&contrast.left), words(&contrast.right));
        assert!(
            bad.contains(&"too long".to_owned()) && good.contains(&"clear and".to_owned()),
            "{bad:?} {good:?}"
        );
        // Pairs with a word of no side are said by the other word, words of a telling pair by the pair.
        for everybody in ["the", "answer", "is", "me", "the answer", "is clear", "to me", "clear", "long"] {
            assert!(
                !bad.contains(&everybody.to_owned()) && !good.contains(&everybody.to_owned()),
                "{everybody}"
            );
        }
        assert_eq!((contrast.left.terms[0].here, contrast.left.terms[0].there), (12, 0));
        assert!(contrast.left.quotes[0].text.contains("too long"));
    }

    #[test]
    fn critiques_lean_as_the_marks_on_their_response() {
        let critique =
            |by: &str| Feedback::from(Form::Critique { on: Some("a".into()), text: "words".into() }).by(by);
        let lost = Form::Comparison { better: "b".into(), worse: "a".into() };
        let record =
            Record::new("r", "q").respond("a", "x").respond("b", "y").say(Feedback::from(lost).by("u1")).say(
                Feedback::from(Form::Rating { on: "a".into(), value: 5.0, scale: Some([1.0, 5.0]) }).by("u2"),
            );
        assert_eq!(leaning(&record, &critique("u1")), Some(false));
        assert_eq!(leaning(&record, &critique("u2")), Some(true));
        assert_eq!(leaning(&record, &critique("u3")), None);
        let middle = Form::Rating { on: "a".into(), value: 3.0, scale: Some([1.0, 5.0]) };
        assert_eq!(mark(&middle.into()), None);
    }

    #[test]
    fn one_text_that_repeats_itself_is_no_theme() {
        let mut counter = ThemeCounter::new(ThemeSettings::default());
        for k in 0..10 {
            counter.add(&rated(
                k,
                "x",
                false,
                if k == 0 { "spam spam spam spam spam spam spam spam" } else { "fine words" },
            ));
            counter.add(&rated(50 + k, "x", true, "fine words"));
        }
        let themes = counter.finish();
        assert!(themes.contrasts[0].left.terms.iter().all(|t| !t.term.contains("spam")));
    }

    #[test]
    fn chosen_against_rejected() {
        let mut counter = ThemeCounter::new(ThemeSettings::default());
        for k in 0..10 {
            let better = Form::Comparison { better: "a".into(), worse: "b".into() };
            let record = Record::new(format!("r{k}"), "q")
                .respond("a", "Please take two of them")
                .respond("b", "Dunno take two of them")
                .say(better);
            counter.add(&record);
        }
        let themes = counter.finish();
        let contrast = themes.contrasts.iter().find(|c| c.id == "responses").unwrap();
        assert!(contrast.left.terms[0].term.starts_with("please"), "{:?}", contrast.left.terms);
        assert!(contrast.right.terms[0].term.starts_with("dunno"), "{:?}", contrast.right.terms);
        assert!(ThemeCounter::default().finish().contrasts.is_empty());
    }
}
