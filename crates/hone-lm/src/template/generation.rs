//! The `{% generation %}` tag.
//!
//! minijinja has no own tags, so the source is rewritten: the tag becomes a filter block whose filter puts markers
//! around the text when a caller wants to know where it lies. A `with` block gives it a scope of its own, as in Jinja,
//! where the tag's body is a macro.

use minijinja::{State, Value};

/// The variable that holds the two marker characters; absent in a plain rendering.
pub(super) const MARKERS: &str = "hone_generation_markers";
/// The filter that marks.
pub(super) const FILTER: &str = "hone_generation";

/// Puts the markers around text.
pub(super) fn mark(state: &State, text: String) -> Value {
    match state
        .lookup(MARKERS)
        .as_ref()
        .and_then(Value::as_str)
        .map(|m| m.chars().collect::<Vec<_>>())
        .as_deref()
    {
        Some([start, end]) => Value::from(format!("{start}{text}{end}")),
        _ => Value::from(text),
    }
}

/// The source with the tag replaced. Lines keep their numbers.
pub(super) fn rewrite(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut done = 0;
    for tag in tags(source) {
        let inner = &source[tag.start + 2..tag.end - 2];
        let left = if inner.starts_with(['-', '+']) { &inner[..1] } else { "" };
        let right = if inner.ends_with(['-', '+']) { &inner[inner.len() - 1..] } else { "" };
        let lines = "\n".repeat(inner.matches('\n').count());
        let replacement = match tag.name {
            "generation" => format!("{{%{left} filter {FILTER}{lines} %}}{{% with {right}%}}"),
            "endgeneration" => format!("{{%{left} endwith{lines} %}}{{% endfilter {right}%}}"),
            _ => continue,
        };
        out.push_str(&source[done..tag.start]);
        out.push_str(&replacement);
        done = tag.end;
    }
    out.push_str(&source[done..]);
    out
}

/// Whether the source uses the tag.
pub(super) fn has_tag(source: &str) -> bool {
    tags(source).iter().any(|tag| tag.name == "generation")
}

struct Tag<'s> {
    name: &'s str,
    start: usize,
    end: usize,
}

/// All `{% … %}` of a source outside comments, expressions and raw blocks.
fn tags(source: &str) -> Vec<Tag<'_>> {
    let mut tags = Vec::new();
    let mut at = 0;
    while let Some(found) = source[at..].find('{') {
        let start = at + found;
        let rest = &source[start..];
        if rest.starts_with("{#") {
            at = rest.find("#}").map_or(source.len(), |end| start + end + 2);
        } else if rest.starts_with("{{") {
            let Some(end) = close(source, start + 2, "}}") else { break };
            at = end;
        } else if rest.starts_with("{%") {
            // Unclosed: the parser says so.
            let Some(end) = close(source, start + 2, "%}") else { break };
            let inner = source[start + 2..end].trim_start_matches(['-', '+']).trim_start();
            let name =
                &inner[..inner.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(inner.len())];
            if name == "raw" {
                at = end_of_raw(source, end);
                continue;
            }
            tags.push(Tag { name, start, end });
            at = end;
        } else {
            at = start + 1;
        }
    }
    tags
}

/// Just past the closing delimiter, which may not lie inside a string.
fn close(source: &str, from: usize, delimiter: &str) -> Option<usize> {
    let mut quote = None;
    let mut chars = source[from..].char_indices();
    while let Some((i, c)) = chars.next() {
        match quote {
            Some(q) if c == q => quote = None,
            Some(_) if c == '\\' => {
                chars.next();
            }
            Some(_) => {}
            None if c == '"' || c == '\'' => quote = Some(c),
            None if source[from + i..].starts_with(delimiter) => return Some(from + i + delimiter.len()),
            None => {}
        }
    }
    None
}

fn end_of_raw(source: &str, mut at: usize) -> usize {
    while let Some(found) = source[at..].find("{%") {
        let start = at + found;
        let Some(end) = close(source, start + 2, "%}") else { break };
        let inner = source[start + 2..end].trim_start_matches(['-', '+']).trim_start();
        if inner.starts_with("endraw") {
            return end;
        }
        at = start + 2;
    }
    source.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whitespace_control_and_lines_stay() {
        assert_eq!(
            rewrite("a\n{%- generation -%} x {%+ endgeneration %}"),
            "a\n{%- filter hone_generation %}{% with -%} x {%+ endwith %}{% endfilter %}"
        );
        assert_eq!(rewrite("{%\ngeneration\n%}").matches('\n').count(), 2);
    }

    #[test]
    fn only_real_tags() {
        for source in [
            "{# {% generation %} #}",
            "{% raw %}{% generation %}{% endraw %}",
            "{{ '{% generation %}' }}",
            "{% set x = '%} {% generation %}' %}",
            "{% set generation = 1 %}{{ generation }}",
            "{ % generation % }",
            "{% generation",
        ] {
            let kept = rewrite(source);
            assert_eq!(kept, source);
            assert!(!has_tag(source));
        }
    }
}
