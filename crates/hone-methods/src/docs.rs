//! The page of each method, made from its one comment, and the table of them all.

use std::path::{Path, PathBuf};

use crate::catalogue::METHODS;
use crate::error::{Error, Result};
use crate::method::Method;

/// The Markdown page of a method: name, comment, defaults.
///
/// # Errors
/// [`Error::Settings`] if the defaults do not fit TOML.
pub fn page(method: &Method) -> Result<String> {
    // rustdoc keeps the space after `///`.
    let body: Vec<&str> = method.doc.lines().map(|line| line.strip_prefix(' ').unwrap_or(line)).collect();
    let body = body.join("\n").replace("\n# ", "\n\n## ");
    let defaults = (method.defaults)()?.to_string();
    let settings = match defaults.is_empty() {
        true => "None.\n".to_string(),
        false => format!("```toml\n{defaults}```\n"),
    };
    let claims: String = method
        .claims
        .iter()
        .map(|c| format!("- `{}`: {} Measured: {}; against: {}.\n", c.name, c.says, c.metric, c.baseline))
        .collect();
    Ok(format!(
        "# {} (`{}`)\n\n{body}\n\n## Claims that `hone reproduce {}` runs\n\n{claims}\n## Default settings\n\n{settings}",
        method.name, method.id, method.id
    ))
}

/// The table of all methods in Markdown, its links relative to a file from which the pages lie under `folder`.
pub fn table(folder: &str) -> String {
    let mut text = String::from("| method | what it does | family | learns from |\n|---|---|---|---|\n");
    for method in METHODS {
        let link = format!("[{}]({folder}{}.md)", method.name, method.id);
        let (family, needs) = (method.family.name(), method.needs.name());
        // A bar in a cell would end it.
        let summary = method.summary().replace('|', "\\|");
        text += &format!("| {link} | {summary} | {family} | {needs} |\n");
    }
    text
}

/// Every generated file with its text: the index, then one page per method.
///
/// # Errors
/// As [`page`].
fn pages(dir: &Path) -> Result<Vec<(PathBuf, String)>> {
    let head = "# Methods\n\nOne page per published method, each made from the comment in its source file.";
    let mut pages = vec![(dir.join("README.md"), format!("{head}\n\n{}", table("")))];
    for method in METHODS {
        pages.push((dir.join(format!("{}.md", method.id)), page(method)?));
    }
    Ok(pages)
}

/// Writes the page of every method and their index into `dir`, and removes the Markdown of methods that are gone.
///
/// # Errors
/// [`Error::Io`] naming the file.
pub fn write(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
    let pages = pages(dir)?;
    for (path, text) in &pages {
        std::fs::write(path, text).map_err(Error::io(path))?;
    }
    for path in strangers(dir, &pages)?.iter().filter(|path| path.extension().is_some_and(|e| e == "md")) {
        std::fs::remove_file(path).map_err(Error::io(path))?;
    }
    Ok(())
}

/// The files in `dir` that are not as generated: missing, changed, or of no method.
///
/// # Errors
/// [`Error::Io`] if the folder cannot be read.
pub fn stale(dir: &Path) -> Result<Vec<String>> {
    let pages = pages(dir)?;
    let changed =
        pages.iter().filter(|(path, text)| std::fs::read_to_string(path).unwrap_or_default() != *text);
    let mut stale: Vec<PathBuf> = changed.map(|(path, _)| path.clone()).collect();
    stale.extend(strangers(dir, &pages)?);
    Ok(stale.iter().map(|path| path.display().to_string()).collect())
}

fn strangers(dir: &Path, pages: &[(PathBuf, String)]) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(dir).map_err(Error::io(dir))?.flatten().map(|entry| entry.path());
    Ok(entries.filter(|path| pages.iter().all(|(known, _)| known != path)).collect())
}

const BEGIN: &str = "<!-- methods -->\n";
const END: &str = "<!-- /methods -->";

/// `text` with the table of methods between its two markers; `None` without both, in this order.
pub fn with_table(text: &str) -> Option<String> {
    let start = text.find(BEGIN)? + BEGIN.len();
    let end = start + text[start..].find(END)?;
    Some(format!("{}\n{}\n{}", &text[..start], table("docs/methods/"), &text[end..]))
}

/// Renews the table of methods in a file at the workspace's root. A file without the markers is left alone.
///
/// # Errors
/// [`Error::Io`] naming the file.
pub fn write_table(file: &Path) -> Result<()> {
    let text = std::fs::read_to_string(file).map_err(Error::io(file))?;
    match with_table(&text) {
        Some(new) if new != text => std::fs::write(file, new).map_err(Error::io(file)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_current() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/methods");
        let stale = stale(&dir).unwrap();
        assert!(stale.is_empty(), "run `cargo xtask docs --write`: {stale:?}");
    }

    #[test]
    fn the_table_of_the_front_page_is_current() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
        let text = std::fs::read_to_string(path).unwrap();
        let Some(current) = with_table(&text) else {
            assert!(
                !text.contains("<!-- methods -->"),
                "README.md: no `<!-- /methods -->` after `<!-- methods -->`"
            );
            return;
        };
        assert!(text == current, "README.md: the table of methods is old; run `cargo xtask docs --write`");
    }

    #[test]
    fn the_table_goes_between_its_markers_and_nowhere_else() {
        let text = "before\n<!-- methods -->\nold\n<!-- /methods -->\nafter\n";
        let new = with_table(text).unwrap();
        assert!(
            new.starts_with("before\n<!-- methods -->\n\n| method |") && !new.contains("\nold\n"),
            "{new}"
        );
        assert!(new.ends_with("|\n\n<!-- /methods -->\nafter\n"), "{new}");
        assert_eq!(with_table(&new).unwrap(), new);
        assert_eq!(new.matches("](docs/methods/").count(), METHODS.len());
        assert_eq!(with_table("<!-- /methods -->\n<!-- methods -->\n"), None);
    }

    #[test]
    fn what_is_written_is_not_stale_and_strangers_are() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("gone.md"), "x").unwrap();
        let before = stale(dir.path()).unwrap();
        assert_eq!(before.len(), METHODS.len() + 2, "{before:?}");
        write(dir.path()).unwrap();
        assert_eq!(stale(dir.path()).unwrap(), Vec::<String>::new());
        std::fs::write(dir.path().join("dpo.md"), "x").unwrap();
        assert_eq!(stale(dir.path()).unwrap(), [dir.path().join("dpo.md").display().to_string()]);
    }

    #[test]
    fn a_page_holds_comment_claims_and_defaults() {
        let page = page(crate::find("dpo").unwrap()).unwrap();
        for part in ["# DPO (`dpo`)", "## Departs from the paper", "beta = 0.1", "[training]", "claim_"] {
            assert!(page.contains(part), "{part}");
        }
    }
}
