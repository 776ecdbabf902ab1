//! Checks on the documents.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};

/// Every relative link in the Markdown files leads to a file, and ARCHITECTURE.md has a heading for every crate.
///
/// # Errors
/// All that is wrong, one per line.
pub fn check(root: &Path) -> Result<()> {
    let mut files = vec![];
    markdown(root, &mut files)?;
    ensure!(!files.is_empty(), "no Markdown file found");
    let mut wrong = vec![];
    for file in &files {
        let text = std::fs::read_to_string(file)?;
        let folder = file.parent().unwrap_or(root);
        for link in links(&text) {
            let path = link.split('#').next().unwrap_or_default();
            if !path.is_empty() && !path.contains("://") && !folder.join(path).exists() {
                wrong.push(format!("{}: link to {path} leads nowhere", file.display()));
            }
        }
    }
    let architecture = std::fs::read_to_string(root.join("ARCHITECTURE.md"))?;
    let mut crates = 0;
    for entry in std::fs::read_dir(root.join("crates"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        crates += 1;
        if !architecture.contains(&format!("\n## crates/{name}")) {
            wrong.push(format!("ARCHITECTURE.md: no heading `## crates/{name}`"));
        }
    }
    let headings = architecture.matches("\n## crates/").count();
    if headings != crates {
        wrong.push(format!("ARCHITECTURE.md: {headings} headings for {crates} crates"));
    }
    if wrong.is_empty() { Ok(()) } else { bail!("{}", wrong.join("\n")) }
}

/// All Markdown files outside build folders.
fn markdown(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && !name.starts_with('.') && name != "target" {
            markdown(&path, files)?;
        } else if name.ends_with(".md") {
            files.push(path);
        }
    }
    Ok(())
}

/// Targets of inline links outside code blocks.
fn links(text: &str) -> Vec<&str> {
    let mut found = vec![];
    let mut code = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            code = !code;
        }
        if code {
            continue;
        }
        let mut rest = line;
        while let Some((_, after)) = rest.split_once("](") {
            let Some((link, after)) = after.split_once(')') else { break };
            found.push(link);
            rest = after;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::links;

    #[test]
    fn links_are_found_outside_code() {
        let text = "See [a](x.md#y) and [b](https://z).\n```\n[c](no.md)\n```\n[d](docs/e.md)";
        assert_eq!(links(text), ["x.md#y", "https://z", "docs/e.md"]);
    }
}
