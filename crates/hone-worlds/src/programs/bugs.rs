//! Planting bugs of known kinds in a program, and telling which kind a wrong program has.

use rand_chacha::ChaCha8Rng;

use crate::seed::pick;

/// A piece of a line: a word, a number, a sign, or the space between.
fn tokens(line: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    let kind = |c: char| match c {
        c if c.is_alphanumeric() || c == '_' => 0,
        c if c.is_whitespace() => 1,
        '(' | ')' | '[' | ']' | ':' | ',' => 3,
        _ => 2,
    };
    for c in line.chars() {
        match tokens.last_mut() {
            Some(last) if kind(c) != 3 && last.chars().last().map(kind) == Some(kind(c)) => last.push(c),
            _ => tokens.push(c.to_string()),
        }
    }
    tokens
}

/// Signs and what a hurried writer puts instead.
const SWAPS: &[(&str, &str)] =
    &[("+", "-"), ("-", "+"), ("*", "+"), (">", "<"), ("+=", "-="), ("-=", "+="), (">=", "<"), ("==", "!=")];

/// The program with the bug, and the line it is in; `None` if the program has no place for this kind.
pub(super) fn plant(code: &str, kind: &str, rng: &mut ChaCha8Rng) -> Option<(String, usize)> {
    let mut lines: Vec<String> = code.lines().map(str::to_string).collect();
    let places = places(&lines, kind);
    if places.is_empty() {
        return None;
    }
    let (line, change) = pick(rng, &(0..places.len()).map(|at| (places[at].0, at)).collect::<Vec<_>>());
    lines[line].clone_from(&places[change].1);
    Some((lines.join("\n"), line))
}

/// Whether the program has a place for this kind.
pub(super) fn possible(code: &str, kind: &str) -> bool {
    !places(&code.lines().map(str::to_string).collect::<Vec<_>>(), kind).is_empty()
}

/// Every line that can have the bug, as it would be.
fn places(lines: &[String], kind: &str) -> Vec<(usize, String)> {
    let parameters: Vec<String> = tokens(&lines[0])
        .into_iter()
        .skip(3)
        .filter(|token| token.chars().all(char::is_alphanumeric))
        .collect();
    let whiles = lines.iter().any(|line| line.trim_start().starts_with("while"));
    let builds_list = lines.iter().any(|line| line.ends_with("= []"));
    let mut places = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let (parts, last) = (tokens(line), index + 1 == lines.len());
        let with = |at: usize, new: &str| {
            let mut parts = parts.clone();
            parts[at] = new.to_string();
            parts.concat()
        };
        // A `while` line and what moves it are left alone by other kinds: they could make an endless loop. A changed
        // `%` may change nothing that is asked, and a changed sign between lists or strings is an error of type.
        let moves = whiles && (line.contains("while") || line.contains("x -="));
        let subtle = moves || line.contains('%');
        match kind {
            "syntax" if line.ends_with(':') => places.push((index, line[..line.len() - 1].to_string())),
            "return" if last && line.contains("return ") => places.push((index, line.replace("return ", ""))),
            "loop" if whiles && line.contains("x -=") => places.push((index, line.replace("x -=", "x +="))),
            "type" if line.contains("return ") && !line.contains('[') && !builds_list => {
                places.push((index, format!("{line} + [1]")));
            }
            "operator" if index > 0 && !subtle && !line.contains("s *") => {
                for (at, part) in parts.iter().enumerate() {
                    let near =
                        |other: usize, bracket: &str| parts.get(other).is_some_and(|part| part == bracket);
                    let joins_lists = at > 1 && near(at - 2, "]") || near(at + 2, "[");
                    let swap = SWAPS.iter().find(|(from, _)| from == part && !joins_lists);
                    places.extend(swap.map(|(_, to)| (index, with(at, to))));
                }
            }
            "number" if index > 0 && !subtle => {
                for (at, part) in parts.iter().enumerate() {
                    if let Ok(number) = part.parse::<i64>() {
                        places.push((index, with(at, &(number + 1).to_string())));
                    }
                }
            }
            "name" if index > 0 && places.is_empty() => {
                let used = parts.iter().position(|part| parameters.contains(part));
                places.extend(used.map(|at| (index, with(at, "q"))));
            }
            _ => {}
        }
    }
    places
}

/// What one changed token is: `operator`, `number` or `result` for anything else, and the line.
///
/// `None` if the programs have different numbers of lines.
pub(super) fn difference(answer: &str, reference: &str) -> Option<(&'static str, usize)> {
    let (answer, reference): (Vec<&str>, Vec<&str>) = (answer.lines().collect(), reference.lines().collect());
    let line = answer.iter().zip(&reference).position(|(one, other)| one.trim_end() != *other)?;
    if answer.len() != reference.len() {
        return Some(("result", line));
    }
    let (one, other) = (tokens(answer[line]), tokens(reference[line]));
    let changed: Vec<(&String, &String)> = one.iter().zip(&other).filter(|(a, b)| a != b).collect();
    let kind = match changed[..] {
        [(a, b)] if one.len() == other.len() => {
            let sign = |token: &str| SWAPS.iter().any(|(from, to)| token == *from || token == *to);
            let number = |token: &str| token.parse::<i64>().is_ok();
            if sign(a) && sign(b) {
                "operator"
            } else if number(a) && number(b) {
                "number"
            } else {
                "result"
            }
        }
        _ => "result",
    };
    Some((kind, line))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::rng;

    const LOOP: &str = "def f(x):\n    t = 2\n    while x > 0:\n        t += x\n        x -= 1\n    return t";

    #[test]
    fn bugs_stand_where_they_are_said_to() {
        let mut rng = rng(1, "bugs");
        for kind in ["syntax", "name", "type", "operator", "number", "return", "loop"] {
            let (code, line) = plant(LOOP, kind, &mut rng).unwrap();
            let changed: Vec<usize> = code
                .lines()
                .zip(LOOP.lines())
                .enumerate()
                .filter(|(_, (a, b))| a != b)
                .map(|(at, _)| at)
                .collect();
            assert_eq!(changed, [line], "{kind}: {code}");
        }
        assert!(!possible("def f(x):\n    return x + 1", "loop"));
    }

    #[test]
    fn one_changed_token_is_named() {
        let reference = "def f(x):\n    return x * 2 + 3";
        assert_eq!(difference("def f(x):\n    return x + 2 + 3", reference), Some(("operator", 1)));
        assert_eq!(difference("def f(x):\n    return x * 2 + 4", reference), Some(("number", 1)));
        assert_eq!(difference("def f(x):\n    return 3", reference), Some(("result", 1)));
        assert_eq!(difference(reference, reference), None);
    }
}
