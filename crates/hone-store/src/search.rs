//! Full-text search: how text becomes words, how a query becomes terms, and the search with its filters.
//!
//! Both databases are given ready words, so that they find the same: runs of letters and digits in small letters,
//! and each character of scripts that are written without blanks as a word of its own.

use std::collections::HashSet;

use hone_feedback::FormKind;

use crate::error::Result;
use crate::read;
use crate::sql::{Row, Sql, Value};
use crate::store::{Page, Query};

/// Longest word, in characters; longer ones are cut, in text and query alike.
const LONGEST_WORD: usize = 64;
/// Text beyond this many bytes of one document is not searched: an entry of Postgres holds a megabyte.
const LONGEST_TEXT: usize = 128 << 10;
/// Bits of a document's number that say which item of feedback of an exchange it is; 0 is the exchange.
pub(crate) const PLACE_BITS: u32 = 20;
/// Candidates looked at in one round.
const ROUND: i64 = 500;
/// Candidates looked at in one search; where more would be needed, the page says where to go on.
const MOST: i64 = 200_000;

/// The number of a document: an exchange's text (`place` 0), or what was said about it. None past the last place.
pub(crate) fn document(exchange: i64, place: i64) -> Option<i64> {
    (place < 1 << PLACE_BITS).then_some(exchange << PLACE_BITS | place)
}

/// A query's parts, all of which must be found in one document.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Terms(pub Vec<Term>);

/// Words that follow each other, the last of which may be the start of a word.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Term {
    pub words: Vec<String>,
    pub prefix: bool,
}

/// The words of a text, joined by blanks.
pub(crate) fn words(text: &str) -> String {
    let mut end = text.len().min(LONGEST_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let mut out = String::with_capacity(end);
    for word in split(&text[..end]) {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(&word);
    }
    out
}

/// The words of a text.
fn split(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut length = 0;
    for c in text.chars() {
        if stands_alone(c) {
            if !word.is_empty() {
                words.push(std::mem::take(&mut word));
            }
            length = 0;
            words.push(c.to_string());
        } else if c.is_alphanumeric() {
            if length < LONGEST_WORD {
                // Of letters whose small form is several characters, only those a word is made of.
                word.extend(c.to_lowercase().filter(|c| c.is_alphanumeric()));
                length += 1;
            }
        } else if !word.is_empty() {
            words.push(std::mem::take(&mut word));
            length = 0;
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// Characters of Chinese and Japanese, between which no blank is written.
fn stands_alone(c: char) -> bool {
    matches!(c, '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{20000}'..='\u{3134f}')
}

impl Terms {
    /// Words, `"phrases"` and `beginnings*`.
    pub fn parse(query: &str) -> Self {
        let mut terms = Vec::new();
        for (index, part) in query.split('"').enumerate() {
            if index % 2 == 1 {
                let words = split(part);
                if !words.is_empty() {
                    terms.push(Term { words, prefix: false });
                }
                continue;
            }
            for word in part.split_whitespace() {
                // `don't` is two words in the text; they must stand side by side.
                let words = split(word);
                if !words.is_empty() {
                    terms.push(Term { words, prefix: word.ends_with('*') });
                }
            }
        }
        Terms(terms)
    }
}

/// The condition that gives candidates in order, the most selective that the query has.
struct Driver<'a> {
    sql: &'static str,
    args: Vec<Value<'a>>,
}

/// The exchanges that a query asks for, newest first.
pub(crate) fn search(sql: &mut dyn Sql, query: &Query) -> Result<Page> {
    let limit = query.limit.clamp(1, 1000);
    let terms = query.text.as_deref().map(Terms::parse).filter(|terms| !terms.0.is_empty());
    let driver = driver(query);
    let mut before = query.before.unwrap_or(i64::MAX >> PLACE_BITS);
    let mut found: Vec<i64> = Vec::new();
    let mut looked_at = 0;
    let mut more = true;
    while more && found.len() < limit && looked_at < MOST {
        let candidates = match &terms {
            Some(terms) => {
                let documents = sql.matches(terms, before << PLACE_BITS, ROUND)?;
                more = documents.len() as i64 == ROUND;
                let mut seen = HashSet::new();
                documents.into_iter().map(|doc| doc >> PLACE_BITS).filter(|seq| seen.insert(*seq)).collect()
            }
            None => {
                let mut args = driver.args.clone();
                args.extend([Value::Int(before), Value::Int(ROUND)]);
                let rows = sql.query(driver.sql, &args)?;
                more = rows.len() as i64 == ROUND;
                rows.iter().map(|row| row.int(0)).collect::<Vec<_>>()
            }
        };
        looked_at += ROUND;
        let Some(last) = candidates.last().copied() else {
            more = false;
            break;
        };
        for seq in filter(sql, query, &candidates)? {
            found.push(seq);
            if found.len() == limit {
                break;
            }
        }
        before = match found.last() {
            Some(seq) if found.len() == limit => *seq,
            _ => last,
        };
        more |= found.len() == limit && before != last;
    }
    Ok(Page { hits: read::records(sql, &found)?, next: more.then_some(before) })
}

fn driver(query: &Query) -> Driver<'_> {
    // Each gives distinct exchanges below a number, from the highest down, from an index in that order.
    if let Some(session) = &query.session {
        return Driver {
            sql: "SELECT seq FROM exchange WHERE session = $1 AND seq < $2 ORDER BY seq DESC LIMIT $3",
            args: vec![session.into()],
        };
    }
    if let Some(tag) = &query.tag {
        return Driver {
            sql: "SELECT exchange FROM tag WHERE tag = $1 AND exchange < $2 ORDER BY exchange DESC LIMIT $3",
            args: vec![tag.into()],
        };
    }
    if let Some(user) = &query.user {
        return Driver {
            sql: "SELECT seq FROM exchange WHERE shown = $1 AND seq < $2 ORDER BY seq DESC LIMIT $3",
            args: vec![user.into()],
        };
    }
    if let Some(by) = &query.by {
        return Driver {
            sql: "SELECT DISTINCT exchange FROM feedback WHERE person = $1 AND exchange < $2
                  ORDER BY exchange DESC LIMIT $3",
            args: vec![by.into()],
        };
    }
    if let Some(model) = &query.model {
        return Driver {
            sql: "SELECT DISTINCT exchange FROM response WHERE model = $1 AND exchange < $2
                  ORDER BY exchange DESC LIMIT $3",
            args: vec![model.into()],
        };
    }
    if query.form.is_some() {
        return Driver {
            sql: "SELECT DISTINCT exchange FROM feedback WHERE exchange < $1 ORDER BY exchange DESC LIMIT $2",
            args: vec![],
        };
    }
    Driver { sql: "SELECT seq FROM exchange WHERE seq < $1 ORDER BY seq DESC LIMIT $2", args: vec![] }
}

/// Those of the candidates that keep every condition, in the same order.
fn filter(sql: &mut dyn Sql, query: &Query, candidates: &[i64]) -> Result<Vec<i64>> {
    let Query { text: _, model, session, tag, user, by, form, since, until, before: _, limit: _ } = query;
    let mut text = "SELECT e.seq FROM exchange e WHERE e.seq".to_owned();
    let mut args: Vec<Value> = Vec::new();
    let numbers: Vec<String> = candidates.iter().map(ToString::to_string).collect();
    text.push_str(&format!(" IN ({})", numbers.join(",")));
    let kind = form.map(FormKind::name);
    let conditions: [(&str, Option<Value>); 8] = [
        ("e.session = #", session.as_ref().map(Value::from)),
        ("e.shown = #", user.as_ref().map(Value::from)),
        ("e.at >= #", since.map(Value::Int)),
        ("e.at < #", until.map(Value::Int)),
        ("EXISTS(SELECT 1 FROM tag t WHERE t.tag = # AND t.exchange = e.seq)", tag.as_ref().map(Value::from)),
        (
            "EXISTS(SELECT 1 FROM response r WHERE r.exchange = e.seq AND r.model = #)",
            model.as_ref().map(Value::from),
        ),
        (
            "EXISTS(SELECT 1 FROM feedback f WHERE f.exchange = e.seq AND f.person = #)",
            by.as_ref().map(Value::from),
        ),
        ("EXISTS(SELECT 1 FROM feedback f WHERE f.exchange = e.seq AND f.form = #)", kind.map(Value::from)),
    ];
    for (condition, value) in conditions {
        if let Some(value) = value {
            args.push(value);
            text.push_str(" AND ");
            text.push_str(&condition.replace('#', &format!("${}", args.len())));
        }
    }
    if args.is_empty() && query.text.is_none() {
        return Ok(candidates.to_vec());
    }
    // Candidates by text may have been deleted meanwhile, so they are looked up even without a condition.
    let kept: HashSet<i64> = sql.query(&text, &args)?.iter().map(|row: &Row| row.int(0)).collect();
    Ok(candidates.iter().copied().filter(|seq| kept.contains(seq)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_to_words() {
        assert_eq!(words("Don't PANIC, v1.5 — naïve Straße!"), "don t panic v1 5 naïve straße");
        assert_eq!(words("東京abc都"), "東 京 abc 都");
        assert_eq!(words(&"x".repeat(100)), "x".repeat(64));
        assert_eq!(words("\u{0}'\"\\"), "");
    }

    #[test]
    fn queries_to_terms() {
        let term =
            |words: &[&str], prefix| Term { words: words.iter().map(|w| (*w).to_owned()).collect(), prefix };
        let parsed = Terms::parse(r#"Cat "sat on" don't mat* "open end 東京"#).0;
        let expected = [
            term(&["cat"], false),
            term(&["sat", "on"], false),
            term(&["don", "t"], false),
            term(&["mat"], true),
            term(&["open", "end", "東", "京"], false),
        ];
        assert_eq!(parsed, expected);
        assert_eq!(Terms::parse(" \" * -").0, []);
    }
}
