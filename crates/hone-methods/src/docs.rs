//! The page of each method, made from its one comment.

use std::path::Path;

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

/// Writes the page of every method into `dir`.
///
/// # Errors
/// [`Error::Io`] naming the file.
pub fn write(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
    for method in METHODS {
        let path = dir.join(format!("{}.md", method.id));
        std::fs::write(&path, page(method)?).map_err(Error::io(&path))?;
    }
    Ok(())
}

/// The pages in `dir` that are not as generated: missing, changed, or of no method.
///
/// # Errors
/// [`Error::Io`] if the folder cannot be read.
pub fn stale(dir: &Path) -> Result<Vec<String>> {
    let mut stale = vec![];
    for method in METHODS {
        let path = dir.join(format!("{}.md", method.id));
        if std::fs::read_to_string(&path).unwrap_or_default() != page(method)? {
            stale.push(path.display().to_string());
        }
    }
    for entry in std::fs::read_dir(dir).map_err(Error::io(dir))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let known = METHODS.iter().any(|method| name == format!("{}.md", method.id));
        if !known {
            stale.push(entry.path().display().to_string());
        }
    }
    Ok(stale)
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
    fn a_page_holds_comment_claims_and_defaults() {
        let page = page(crate::find("dpo").unwrap()).unwrap();
        for part in ["# DPO (`dpo`)", "## Departs from the paper", "beta = 0.1", "[training]", "claim_"] {
            assert!(page.contains(part), "{part}");
        }
    }
}
