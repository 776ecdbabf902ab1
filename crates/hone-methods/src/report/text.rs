//! Text from logs made safe to show: everything in it is taken for hostile.

use std::fmt::Write;

/// Escaped bytes of one text that a page shows where it names no limit of its own.
pub(super) const LIMIT: usize = 4096;

/// `text` as HTML, cut where it would pass `limit` bytes of HTML, and how many scalar values were left out.
///
/// The result stands for itself in an element and in a quoted attribute. White space stays; line ends become `\n`.
/// Controls, and what reorders or hides text (bidirectional embeddings, overrides and isolates, tag characters, line
/// separators), are shown by their number, not obeyed.
pub(super) fn escape(text: &str, limit: usize) -> (String, usize) {
    let mut out = String::with_capacity(text.len().min(limit) + 16);
    let mut piece = String::new();
    let mut rest = text.char_indices().peekable();
    while let Some((at, c)) = rest.next() {
        piece.clear();
        match c {
            '\r' if rest.peek().is_some_and(|(_, next)| *next == '\n') => continue,
            '<' => piece.push_str("&lt;"),
            '>' => piece.push_str("&gt;"),
            '&' => piece.push_str("&amp;"),
            '"' => piece.push_str("&quot;"),
            '\'' => piece.push_str("&#39;"),
            _ => show(c, &mut piece),
        }
        if out.len() + piece.len() > limit {
            return (out, text[at..].chars().count());
        }
        out.push_str(&piece);
    }
    (out, 0)
}

/// `text` for a terminal: on one line, controls shown as in [`escape`].
pub(super) fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\r' | '\t' => out.push(' '),
            _ => show(c, &mut out),
        }
    }
    out
}

/// The first `limit` scalar values of `text` on one line, with `…` where more followed.
pub(super) fn headline(text: &str, limit: usize) -> String {
    let mut out = String::new();
    let mut room = limit;
    for word in text.split_whitespace() {
        let blank = usize::from(!out.is_empty());
        if room <= blank {
            out.push('…');
            return out;
        }
        room -= blank;
        if blank == 1 {
            out.push(' ');
        }
        match word.char_indices().nth(room) {
            None => out += word,
            Some((end, _)) => {
                out += &word[..end];
                out.push('…');
                return out;
            }
        }
        room -= word.chars().count();
    }
    out
}

/// Pushes `c`, or a picture of it where it is a control.
fn show(c: char, out: &mut String) {
    match c {
        '\n' | '\t' => out.push(c),
        '\r' => out.push('\n'),
        // By number, not by the pictures that Unicode has for controls: hardly a font has those.
        '\0'..='\u{1f}'
        | '\u{7f}'..='\u{9f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{200b}'
        | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e007f}' => {
            // Writing to a String cannot fail.
            let _ = write!(out, "[U+{:04X}]", u32::from(c));
        }
        _ => out.push(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_stays_text() {
        let (html, cut) = escape(r#"<script>alert("x")</script></style> & 'y'"#, LIMIT);
        assert_eq!(html, "&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt;&lt;/style&gt; &amp; &#39;y&#39;");
        assert_eq!(cut, 0);
    }

    #[test]
    fn controls_are_shown() {
        assert_eq!(escape("a\0b\u{1b}c\u{7f}", LIMIT).0, "a[U+0000]b[U+001B]c[U+007F]");
        assert_eq!(escape("\u{202e}gpj.exe\u{2066}\u{e0041}", LIMIT).0, "[U+202E]gpj.exe[U+2066][U+E0041]");
        // Joiners inside emoji and Persian words, and the marks of Hebrew and Arabic, are no trick.
        assert_eq!(escape("\u{200d}\u{200f}", LIMIT).0, "\u{200d}\u{200f}");
        assert_eq!(plain("a\nb\u{9b}"), "a b[U+009B]");
    }

    #[test]
    fn white_space_stays() {
        assert_eq!(escape("  a\t b\r\n\r\nc\rd ", LIMIT).0, "  a\t b\n\nc\nd ");
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        // Each `<` takes 4 bytes of HTML, so 10 bytes hold 2 of 5, and 3 are left out.
        assert_eq!(escape("<<<<<", 10), ("&lt;&lt;".into(), 3));
        // `é` takes 2 bytes: 2 of 3 fit in 5.
        assert_eq!(escape("ééé", 5), ("éé".into(), 1));
        let (html, cut) = escape(&"x".repeat(1_000_000), 8000);
        assert_eq!((html.len(), cut), (8000, 992_000));
    }

    #[test]
    fn headlines_are_one_line() {
        assert_eq!(headline("  two\n words ", 20), "two words");
        assert_eq!(headline("two words", 9), "two words");
        assert_eq!(headline("two words", 5), "two w…");
        assert_eq!(headline("two words", 4), "two…");
        assert_eq!(headline(&"x".repeat(1_000_000), 3), "xxx…");
        assert_eq!(headline("", 4), "");
    }
}
