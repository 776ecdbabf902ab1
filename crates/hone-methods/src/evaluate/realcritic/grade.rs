//! The final answer of a solution, and whether two answers are the same.

use serde::{Deserialize, Serialize};

use crate::evaluate::calculate::value;

/// Which rules are graded by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rules {
    /// A box is looked for first in every set; answers are the same number, expression, list or letter.
    Sound,
    /// As released: MMLU's letter is searched in the whole upper-cased text, an answer may be off by a factor of 100, commas
    /// within numbers vanish, and of a list that is no number only the first element is compared.
    Published,
}

/// The final answer in a text, and whether it stood in a box. `set` is the item's set.
pub fn extract(text: &str, set: &str, rules: Rules) -> (String, bool) {
    if set == "mmlu_stem" && rules == Rules::Published {
        return (letter(text), boxed(text).is_some());
    }
    let found = boxed(text);
    let in_box = found.is_some();
    let after = |mark: &str| text.rsplit_once(mark).map(|(_, rest)| first_line(rest).to_string());
    let answer = found
        .or_else(|| after("he answer is"))
        .or_else(|| after("he final answer is"))
        .or_else(|| last_number(text))
        .unwrap_or_default();
    let answer = match set {
        "mmlu_stem" | "arc-challenge" | "gpqa" => choice(&answer).unwrap_or_else(|| letter(text)),
        _ => normal(&answer, rules),
    };
    (answer, in_box)
}

/// What stands in the last box, its braces matched.
fn boxed(text: &str) -> Option<String> {
    let (_, rest) = text.rsplit_once("boxed")?;
    let Some(inner) = rest.trim_start().strip_prefix('{') else {
        return Some(rest.split('$').next().unwrap_or_default().trim().to_string());
    };
    let mut depth = 1;
    for (at, c) in inner.char_indices() {
        depth += match c {
            '{' => 1,
            '}' => -1,
            _ => 0,
        };
        if depth == 0 {
            return Some(inner[..at].to_string());
        }
    }
    Some(inner.to_string())
}

fn first_line(text: &str) -> &str {
    text.trim_start_matches([':', ' ', '\n']).lines().next().unwrap_or_default().trim()
}

fn last_number(text: &str) -> Option<String> {
    let text = text.replace(',', "");
    let digits = |c: char| c.is_ascii_digit();
    let end = text.rfind(digits)? + 1;
    let head = &text[..end];
    let start = head
        .rfind(|c: char| !(digits(c) || c == '.'))
        .map_or(0, |at| at + head[at..].chars().next().map_or(1, char::len_utf8));
    let number = head[start..].trim_start_matches('.');
    let sign = if head[..start].ends_with('-') { "-" } else { "" };
    Some(format!("{sign}{number}"))
}

/// The letter of an answer that is nothing else: `B`, `(B)`, `B. Mars`, `\text{B}`.
fn choice(answer: &str) -> Option<String> {
    let plain = answer.replace("\\text", "").replace("\\textbf", "");
    let plain = plain.trim_matches(|c: char| !c.is_alphanumeric());
    let first = plain.chars().next()?;
    let alone = plain.chars().nth(1).is_none_or(|next| !next.is_alphanumeric());
    (('A'..='E').contains(&first.to_ascii_uppercase()) && alone)
        .then(|| first.to_ascii_uppercase().to_string())
}

/// The released search for a letter in a whole text.
fn letter(text: &str) -> String {
    let mut text = text.to_uppercase();
    let marks = ["ANSWER IS", "CHOICE IS"];
    if marks.iter().any(|mark| text.matches(mark).count() > 1) {
        text = text.split("\n\n").next().unwrap_or_default().to_string();
    }
    let stand_alone = |text: &str| -> Vec<char> {
        let chars: Vec<char> = text.chars().collect();
        let word = |at: Option<&char>| at.is_some_and(|c| c.is_alphanumeric() || *c == '_');
        (0..chars.len())
            .filter(|&at| {
                ('A'..='E').contains(&chars[at])
                    && !word(at.checked_sub(1).and_then(|before| chars.get(before)))
                    && !word(chars.get(at + 1))
            })
            .map(|at| chars[at])
            .collect()
    };
    let after = marks.iter().filter_map(|mark| text.rfind(mark).map(|at| at + mark.len())).max();
    let found = match after {
        Some(at) => stand_alone(&text[at..]).first().copied().or_else(|| stand_alone(&text).last().copied()),
        None => stand_alone(&text).last().copied(),
    };
    found.map_or_else(String::new, |letter| letter.to_string())
}

/// An answer without what does not belong to it: dollar signs, units in words, spacing, a full stop, the name it is given.
pub fn normal(answer: &str, rules: Rules) -> String {
    // Row ends of a matrix are no spacing; they come back at the end.
    let mut text = answer.trim().trim_end_matches(['.', '/', ':']).replace("\\\\", "\u{1}");
    if rules == Rules::Sound {
        // As published this spacing breaks the answer: (10,\ 2) is not (10,2).
        text = text.replace("\\ ", "");
    }
    for (from, to) in [
        ("\\left", ""),
        ("\\right", ""),
        ("\\!", ""),
        ("\\,", ""),
        ("\\;", ""),
        ("\\$", ""),
        ("$", ""),
        ("\\(", ""),
        ("\\)", ""),
        ("\\%", ""),
        ("%", ""),
        ("tfrac", "frac"),
        ("dfrac", "frac"),
        ("^{\\circ}", ""),
        ("^\\circ", ""),
        ("bmatrix", "pmatrix"),
        ("\\mathrm", "\\text"),
        ("\\textbf", "\\text"),
        ("\\mbox", "\\text"),
        ("\\{", "{"),
        ("\\}", "}"),
        ("\n", ""),
    ] {
        text = text.replace(from, to);
    }
    // A unit after the answer goes; an answer that is itself a word stays.
    while let Some(at) = text.find("\\text{") {
        let Some(end) = text[at..].find('}').map(|end| at + end) else { break };
        let inner = text[at + 6..end].trim().to_string();
        let keep = text[..at].trim().is_empty() || text[..at].ends_with(['{', ',', '(']);
        text = format!("{}{}{}", &text[..at], if keep { inner.as_str() } else { "" }, &text[end + 1..]);
    }
    let mut text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    if let Some((name, rest)) = text.split_once('=')
        && name.chars().count() <= 2
        && !rest.contains('=')
    {
        text = rest.to_string();
    }
    let text = text.trim_end_matches('.').replace('\u{1}', "\\\\");
    if text.starts_with('.') { format!("0{text}") } else { text }
}

/// Whether an answer is the same as the reference.
pub fn equal(answer: &str, reference: &str, rules: Rules) -> bool {
    let (answer, reference) = (normal(answer, rules), normal(reference, rules));
    same(&answer, &reference, rules, 0)
}

fn same(answer: &str, reference: &str, rules: Rules, depth: usize) -> bool {
    if answer.eq_ignore_ascii_case(reference) {
        return true;
    }
    if depth > 4 || answer.is_empty() || reference.is_empty() {
        return false;
    }
    if let (Some(answer), Some(reference)) = (digits(answer, rules), digits(reference, rules)) {
        let lenient: &[f64] = if rules == Rules::Published { &[1.0, 0.01, 100.0] } else { &[1.0] };
        return lenient.iter().any(|factor| close(answer, reference * factor));
    }
    let bare = |text: &str| text.replace(['(', ')', '[', ']', '{', '}'], "");
    if bare(answer).eq_ignore_ascii_case(&bare(reference)) {
        return true;
    }
    let go = |answer: &str, reference: &str| same(answer, reference, rules, depth + 1);
    if let (Some(answer), Some(reference)) = (matrix(answer), matrix(reference)) {
        return answer.len() == reference.len() && answer.iter().zip(&reference).all(|(a, r)| go(a, r));
    }
    let (mine, theirs) = (elements(answer), elements(reference));
    if mine.len() > 1 && theirs.len() > 1 {
        return mine.len() == theirs.len() && mine.iter().zip(&theirs).all(|(a, r)| go(a, r));
    }
    if let (Some((al, ar)), Some((rl, rr))) = (answer.split_once('='), reference.split_once('=')) {
        // The same equation up to its sides and its sign.
        let difference = |left: &str, right: &str| format!("({left})-({right})");
        let (a, r) = (difference(al, ar), difference(rl, rr));
        let turned = difference(rr, rl);
        if !ar.contains('=') && !rr.contains('=') && (equal_values(&a, &r) || equal_values(&a, &turned)) {
            return true;
        }
    }
    if equal_values(answer, reference) {
        return true;
    }
    if rules == Rules::Published && mine.len() + theirs.len() > 2 {
        return go(mine.first().map_or("", String::as_str), theirs.first().map_or("", String::as_str));
    }
    false
}

fn close(one: f64, other: f64) -> bool {
    (one - other).abs() <= 1e-4 * one.abs().max(other.abs())
}

/// A plain number. As published, commas vanish wherever they stand; else they stand before three digits.
fn digits(text: &str, rules: Rules) -> Option<f64> {
    let parts: Vec<&str> = text.split(',').collect();
    let thousands =
        parts.iter().skip(1).all(|part| part.split('.').next().is_some_and(|whole| whole.len() == 3));
    let plain = (rules == Rules::Published || thousands).then(|| parts.concat())?;
    plain.parse().ok().filter(|_| !plain.contains(|c: char| c.is_alphabetic()))
}

/// The entries of a matrix, row by row.
fn matrix(text: &str) -> Option<Vec<String>> {
    let (_, inner) = text.split_once("\\begin{pmatrix}")?;
    let (inner, _) = inner.split_once("\\end{pmatrix}")?;
    Some(inner.split("\\\\").flat_map(|row| row.split('&')).map(str::to_string).collect())
}

/// The parts of a list or tuple; one for anything else. Commas inside inner brackets do not part.
fn elements(text: &str) -> Vec<String> {
    let whole = |text: &str| {
        // One pair of brackets around everything.
        let mut depth = 0;
        let last = text.chars().count().saturating_sub(1);
        text.starts_with(['(', '['])
            && text.chars().enumerate().all(|(at, c)| {
                depth += match c {
                    '(' | '[' | '{' => 1,
                    ')' | ']' | '}' => -1,
                    _ => 0,
                };
                depth > 0 || at == last
            })
    };
    let inner = if whole(text) {
        &text[1..text.len() - text.chars().next_back().map_or(0, char::len_utf8)]
    } else {
        text
    };
    let (mut parts, mut depth, mut part) = (vec![], 0, String::new());
    for c in inner.chars() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
        if c == ',' && depth == 0 {
            parts.push(std::mem::take(&mut part));
        } else {
            part.push(c);
        }
    }
    parts.push(part);
    parts
}

/// Whether two expressions have the same value wherever both have one, at five points.
fn equal_values(one: &str, other: &str) -> bool {
    let (one, other) = (plain(one), plain(other));
    let mut compared = 0;
    for point in 0..5_u32 {
        let at = |name: &str| {
            let mut letters = name.chars();
            let (letter, rest) = (letters.next()?, letters.next());
            // Irrational, between 1 and 3, another for each letter and point.
            let spread = f64::from(u32::from(letter) * 37 + point * 101).sqrt().fract();
            (letter.is_alphabetic() && letter != 'e' && rest.is_none()).then_some(1.0 + 2.0 * spread)
        };
        match (value(&one, &at), value(&other, &at)) {
            (Some(one), Some(other)) if close(one, other) || (one - other).abs() < 1e-9 => compared += 1,
            (None, None) => {}
            _ => return false,
        }
    }
    compared > 0
}

/// LaTeX as plain arithmetic.
fn plain(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    let group = |rest: &str| -> Option<(String, usize)> {
        let start = rest.len() - rest.trim_start().len();
        let text = &rest[start..];
        if !text.starts_with('{') {
            // \frac12 and \sqrt3: one sign is the group.
            let first = text.chars().next()?;
            return Some((first.to_string(), start + first.len_utf8()));
        }
        let mut depth = 0;
        for (at, c) in text.char_indices() {
            depth += i32::from(c == '{') - i32::from(c == '}');
            if depth == 0 {
                return Some((text[1..at].to_string(), start + at + 1));
            }
        }
        None
    };
    while let Some(c) = rest.chars().next() {
        if let Some(tail) = rest.strip_prefix("\\frac") {
            if let Some((top, used)) = group(tail)
                && let Some((bottom, more)) = group(&tail[used..])
            {
                out += &format!("(({})/({}))", plain(&top), plain(&bottom));
                rest = &tail[used + more..];
                continue;
            }
        } else if let Some(tail) = rest.strip_prefix("\\sqrt") {
            let (root, tail) = match tail.strip_prefix('[').and_then(|t| t.split_once(']')) {
                Some((root, tail)) => (root.to_string(), tail),
                None => ("2".to_string(), tail),
            };
            if let Some((inner, used)) = group(tail) {
                out += &format!("(({})^(1/({})))", plain(&inner), plain(&root));
                rest = &tail[used..];
                continue;
            }
        }
        let word = |from: &str, to: &str| rest.strip_prefix(from).map(|tail| (to.to_string(), tail));
        let replaced = word("\\cdot", "*")
            .or_else(|| word("\\times", "*"))
            .or_else(|| word("\\div", "/"))
            .or_else(|| word("\\pi", " pi "))
            .or_else(|| {
                // The name of a function or a letter; a stray sign stays and spoils the whole.
                let named = rest[c.len_utf8()..].starts_with(char::is_alphabetic);
                word("\\", " ").filter(|_| named)
            });
        match replaced {
            Some((to, tail)) => {
                out += &to;
                rest = tail;
            }
            None => {
                out.push(match c {
                    '{' | '[' => '(',
                    '}' | ']' => ')',
                    other => other,
                });
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_found() {
        let sound = |text: &str, set: &str| extract(text, set, Rules::Sound);
        assert_eq!(sound("so \\boxed{1} no, \\boxed{\\frac{1}{2}}.", "math"), ("\\frac{1}{2}".into(), true));
        assert_eq!(sound("The answer is 18.", "gsm8k"), ("18".into(), false));
        assert_eq!(sound("It costs $1,250 in all", "gsm8k"), ("1250".into(), false));
        assert_eq!(sound("down by -3.5 degrees", "gsm8k"), ("-3.5".into(), false));
        assert_eq!(sound("A critique. \\boxed{B}", "mmlu_stem"), ("B".into(), true));
        // As published a word that is a letter counts: the article of "a good one".
        assert_eq!(extract("\\boxed{B}. It is a good one", "mmlu_stem", Rules::Published).0, "A");
        assert_eq!(extract("The answer is (C) but A", "mmlu_stem", Rules::Published).0, "C");
    }

    #[test]
    fn equal_answers() {
        for (answer, reference) in [
            ("0.5", "\\frac{1}{2}"),
            ("\\frac12", "1/2"),
            ("6000", "6,000"),
            ("(2x-1)(2x+1)(2x+3)", "(2x+3)(2x-1)(2x+1)"),
            ("2\\sqrt{2}", "\\sqrt{8}"),
            ("x = 5", "5"),
            ("(1, 2)", "(1,\\frac{4}{2})"),
            ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "\\begin{bmatrix}1\\\\ 2\\end{bmatrix}"),
            ("3y - x = 1", "x - 3y + 1 = 0"),
            ("12\\text{ cm}", "12"),
            ("\\text{even}", "even"),
        ] {
            assert!(equal(answer, reference, Rules::Sound), "{answer} and {reference}");
        }
        for (answer, reference) in
            [("1", "100"), ("2", "3"), ("515", "5,15"), ("3", "3,x"), ("", "1"), ("x+1", "x+2")]
        {
            assert!(!equal(answer, reference, Rules::Sound), "{answer} and {reference}");
        }
        for (answer, reference) in [("1", "100"), ("515", "5,15"), ("3", "3,x")] {
            assert!(equal(answer, reference, Rules::Published), "{answer} and {reference}");
        }
    }

    #[test]
    fn stored_scores_of_the_candidates_are_reproduced() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/realcritic");
        if !folder.exists() {
            eprintln!("skipped: no {}", folder.display());
            return;
        }
        for (set, items) in [("gsm8k", 110), ("math", 108), ("mmlu_stem", 118), ("olympiadbench", 108)] {
            let rows = crate::evaluate::rows(&folder.join(format!("{set}.jsonl"))).unwrap();
            let differing: Vec<_> = rows
                .iter()
                .filter_map(|row| {
                    let text = |name: &str| row[name].as_str().unwrap_or_default();
                    let (answer, _) = extract(text("reasoning"), set, Rules::Published);
                    let right = equal(&answer, text("gt"), Rules::Published);
                    (right != (row["previous_score"][0] == true)).then(|| (answer, text("gt").to_string()))
                })
                .collect();
            assert_eq!((rows.len(), differing), (items, vec![]), "{set}");
        }
    }
}
