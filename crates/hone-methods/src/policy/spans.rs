//! Where the tokens of an answer lie in its text.

use hone_lm::Tokenizer;

use crate::error::Result;

/// Start and end in Unicode scalar values.
type Span = (usize, usize);

/// A character of what the tokens say, and the tokens that hold its bytes, first and last.
struct Said {
    char: char,
    tokens: Span,
}

/// `[T]`: where each token's text lies in `response`; `None` for tokens that are not its text.
///
/// White space may differ between the two: templates trim it and add to it, and decoders change it.
///
/// # Errors
/// Those of the tokenizer.
pub(super) fn of_tokens(tokenizer: &Tokenizer, tokens: &[u32], response: &str) -> Result<Vec<Option<Span>>> {
    let said = said(tokenizer, tokens)?;
    let Some(places) = places(&said, response) else {
        return by_ids(tokenizer, tokens, response);
    };
    let mut spans: Vec<Option<Span>> = vec![None; tokens.len()];
    for (said, place) in said.iter().zip(places) {
        let Some(place) = place else { continue };
        for span in &mut spans[said.tokens.0..=said.tokens.1] {
            let (start, end) = span.unwrap_or((place, place + 1));
            *span = Some((start.min(place), end.max(place + 1)));
        }
    }
    Ok(spans)
}

fn said(tokenizer: &Tokenizer, tokens: &[u32]) -> Result<Vec<Said>> {
    let mut stream = tokenizer.stream(true);
    let mut said = vec![];
    // The first token whose bytes do not make a character yet.
    let mut open = None;
    let mut add = |piece: String, first: usize, last: usize| {
        let tokens = |at: usize| if at == 0 { (first, last) } else { (last, last) };
        said.extend(piece.chars().enumerate().map(|(at, char)| Said { char, tokens: tokens(at) }));
    };
    for (at, &id) in tokens.iter().enumerate() {
        let piece = stream.push(id)?;
        if tokenizer.is_special(id) && piece.is_empty() {
            continue;
        }
        let first = *open.get_or_insert(at);
        if !piece.is_empty() {
            add(piece, first, at);
            open = None;
        }
    }
    if let Some(first) = open {
        add(stream.finish()?, first, first);
    }
    Ok(said)
}

/// The place in the response of each character that was said; `None` if the response is not to be found in it.
fn places(said: &[Said], response: &str) -> Option<Vec<Option<usize>>> {
    let response: Vec<char> = response.chars().collect();
    let black = |c: char| !c.is_whitespace();
    let own: Vec<usize> = (0..response.len()).filter(|&at| black(response[at])).collect();
    let there: Vec<usize> = (0..said.len()).filter(|&at| black(said[at].char)).collect();
    let (&first, latest) = (own.first()?, there.len().checked_sub(own.len())?);
    let same = |(&own, &there): (&usize, &usize)| alike(response[own], said[there].char);
    // The last place, since templates write before an answer (thoughts, a header), not after it.
    let begin = (0..=latest).rev().find(|&begin| own.iter().zip(&there[begin..]).all(same))?;
    let mut places = vec![None; said.len()];
    own.iter().zip(&there[begin..]).for_each(|(&own, &there)| places[there] = Some(own));
    // White space inside the answer goes to that after the same character, whatever its kind.
    for at in there[begin] + 1..said.len() {
        let next = places[at - 1].map(|before: usize| before + 1);
        let white = |&next: &usize| response.get(next).is_some_and(|c| c.is_whitespace());
        if !black(said[at].char) {
            places[at] = next.filter(white);
        }
    }
    // Before it only that which is the same: another may be the template's.
    let mut ahead = (0..first).rev().zip((0..there[begin]).rev());
    while let Some((own, at)) = ahead.next().filter(|&(own, at)| response[own] == said[at].char) {
        places[at] = Some(own);
    }
    Some(places)
}

/// Some tokenizers write all letters small.
fn alike(a: char, b: char) -> bool {
    a == b || a.to_lowercase().eq(b.to_lowercase())
}

/// For tokenizers that do not give back the text they took, as those with an unknown token: the tokens of the response
/// alone, if they are among those of the whole.
fn by_ids(tokenizer: &Tokenizer, tokens: &[u32], response: &str) -> Result<Vec<Option<Span>>> {
    let own = tokenizer.encode_spans(response, false)?;
    let ids: Vec<u32> = own.iter().map(|token| token.id).collect();
    let mut spans = vec![None; tokens.len()];
    let begin = tokens.windows(ids.len().max(1)).rposition(|window| window == ids);
    let Some(begin) = begin else { return Ok(spans) };
    for (span, token) in spans[begin..].iter_mut().zip(&own) {
        let ends = |upto: usize| response.char_indices().filter(|(at, c)| at + c.len_utf8() <= upto).count();
        let begun = response.char_indices().filter(|(at, _)| *at < token.end).count();
        *span = Some((ends(token.start), begun)).filter(|(start, end)| start < end);
    }
    Ok(spans)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokenizer(kind: &str) -> Tokenizer {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        Tokenizer::from_folder(root.join("../hone-lm/tests/tokenizers").join(kind)).unwrap()
    }

    /// Spans of the tokens of `written`, where the answer is `response`.
    fn spans(kind: &str, written: &str, response: &str) -> Vec<Option<Span>> {
        let tokenizer = tokenizer(kind);
        of_tokens(&tokenizer, &tokenizer.encode(written, false).unwrap(), response).unwrap()
    }

    /// Characters of the response that some token covers.
    fn covered(spans: &[Option<Span>]) -> std::collections::BTreeSet<usize> {
        spans.iter().flatten().flat_map(|&(start, end)| start..end).collect()
    }

    #[test]
    fn every_byte_of_a_character_is_that_character() {
        // Written é (2 bytes), 你 (3), 🙂 (4) alone: the small vocabulary has a token per byte.
        for (text, bytes) in [("é", 2), ("你", 3), ("🙂", 4)] {
            let spans = spans("byte_level", text, text);
            assert!(spans.len() > 1 && spans.len() <= bytes, "{text}: {spans:?}");
            assert!(spans.iter().all(|span| *span == Some((0, 1))), "{text}: {spans:?}");
        }
        let spans = spans("byte_level", "🙂é你", "🙂é你");
        let of = |at: usize| spans.iter().filter(|span| **span == Some((at, at + 1))).count();
        assert!(of(0) > 1 && of(1) > 1 && of(2) > 1, "{spans:?}");
    }

    #[test]
    fn white_space_that_is_trimmed_added_or_kept() {
        // Scalars: two spaces, é at 2, 你 at 4, 🙂 at 6, `ok` at 8 and 9.
        let response = "  é 你 🙂 ok";
        for kind in ["byte_level", "byte_fallback"] {
            let tokenizer = tokenizer(kind);
            for before in ["", "\n", "\n\n", "  ", "<think>\n\n</think>\n\n", "é "] {
                let written = format!("{before}é 你 🙂 ok");
                let ids = tokenizer.encode(&written, false).unwrap();
                let spans = of_tokens(&tokenizer, &ids, response).unwrap();
                let covered = covered(&spans);
                assert!((2..10).all(|at| covered.contains(&at)), "{kind} {before:?}: {spans:?}");
                // Each token that is text by itself is the text at its place.
                let letters: Vec<char> = response.chars().collect();
                for (&id, span) in ids.iter().zip(&spans) {
                    let text = tokenizer.decode(&[id], true).unwrap();
                    let Some((start, end)) = *span else { continue };
                    let there: String = letters[start..end].iter().collect();
                    if !text.contains('\u{fffd}') && !text.trim().is_empty() {
                        assert_eq!(text.trim(), there.trim(), "{kind} {before:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn leading_white_space_has_its_place_where_it_is_kept() {
        assert_eq!(covered(&spans("byte_level", "  ok", "  ok")), (0..4).collect());
        // A line break by the template is not the space of the answer.
        assert_eq!(covered(&spans("byte_level", "\nok", " ok")), (1..3).collect());
    }

    #[test]
    fn tokenizers_that_do_not_give_back_the_text() {
        // WordPiece writes letters small; the space before a word is decoded with it.
        assert_eq!(covered(&spans("word_piece", "Hello World.", "Hello World.")), (0..12).collect());
        // It has no token for the snowman, whose unknown token is not text.
        let unknown = spans("word_piece", "Good ☃ dog", "Good ☃ dog");
        assert_eq!(unknown, [Some((0, 4)), Some((5, 6)), Some((7, 10))]);
        assert_eq!(spans("word_piece", "dog", "fox"), [None]);
    }
}
