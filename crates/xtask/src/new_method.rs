//! Starts a method: its source, its recipe, its line in the family and its row in the catalogue.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

const SOURCE: &str = include_str!("new_method/method.rs.txt");
const RECIPE: &str = include_str!("new_method/recipe.toml.txt");

/// Names that a module or a settings type in the new file cannot have: Rust's own, and what the file imports.
const TAKEN: [&str; 22] = [
    "as", "bench", "box", "claim", "dyn", "error", "examples", "family", "for", "if", "job", "loop", "match",
    "method", "mod", "needs", "product", "settings", "sft", "shape", "training", "use",
];

/// Writes the files of a new method under `root`, the workspace. Nothing is written unless all of it can be.
///
/// # Errors
/// For an unknown family, an id or a name that cannot stand in the source, or a method that exists.
pub fn start(root: &Path, family: &str, id: &str, name: &str) -> Result<Vec<PathBuf>> {
    let well_formed = !id.is_empty()
        && id.starts_with(|c: char| c.is_ascii_lowercase())
        && id.split('-').all(|part| {
            !part.is_empty() && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
        });
    ensure!(well_formed, "id `{id}`: needs lower-case words joined by `-`, such as critique-grpo");
    ensure!(!TAKEN.contains(&id), "id `{id}`: this word means something else in the source");
    let plain =
        !name.trim().is_empty() && !name.contains(['"', '\\', '{', '}']) && !name.contains(char::is_control);
    ensure!(plain, "name `{name}`: needs one line without quotes, braces and backslashes");

    let source = root.join("crates/hone-methods/src");
    let catalogue_path = source.join("catalogue.rs");
    let families = families(&read(&source.join("method.rs"))?);
    let known: Vec<&str> = families.iter().map(|(name, _)| name.as_str()).collect();
    let Some(order) = known.iter().position(|name| *name == family) else {
        bail!("family `{family}`: needs one of {}", known.join(", "));
    };
    let module = id.replace('-', "_");
    let words: Vec<String> = id.split('-').map(capitalised).collect();
    let fill = |text: &str| {
        text.replace("{{name}}", name.trim())
            .replace("{{id}}", id)
            .replace("{{static}}", &module.to_uppercase())
            .replace("{{type}}", &words.concat())
            .replace("{{variant}}", &families[order].1)
    };

    let list = source.join(family).join("mod.rs");
    let files = [
        (source.join(family).join(format!("{module}.rs")), fill(SOURCE)),
        (root.join(format!("recipes/{id}.toml")), fill(RECIPE)),
    ];
    for (path, _) in &files {
        ensure!(!path.exists(), "{}: exists", path.display());
    }
    let edits = [
        (list.clone(), with_module(&read(&list)?, &module).with_context(|| list.display().to_string())?),
        (
            catalogue_path.clone(),
            with_row(&read(&catalogue_path)?, &known[..=order], &module)
                .with_context(|| catalogue_path.display().to_string())?,
        ),
    ];
    let mut written = vec![];
    for (path, text) in files.into_iter().chain(edits) {
        std::fs::write(&path, text).with_context(|| path.display().to_string())?;
        written.push(path);
    }
    Ok(written)
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| path.display().to_string())
}

fn capitalised(word: &str) -> String {
    let (first, rest) = word.split_at(1);
    first.to_uppercase() + rest
}

/// The folder and the variant of every family, in reading order, from the match that names them.
fn families(method: &str) -> Vec<(String, String)> {
    let arm = |line: &str| {
        let (variant, name) = line.trim().strip_prefix("Family::")?.split_once(" => \"")?;
        Some((name.strip_suffix("\",")?.to_string(), variant.to_string()))
    };
    method.lines().filter_map(arm).collect()
}

/// A family's list of modules with one more, in alphabetical order.
fn with_module(list: &str, module: &str) -> Result<String> {
    let name = |line: &str| Some(line.strip_prefix("pub mod ")?.strip_suffix(';')?.to_string());
    let lines: Vec<&str> = list.lines().collect();
    let last = lines.iter().rposition(|line| name(line).is_some()).context("needs a line `pub mod …;`")?;
    ensure!(!lines.iter().any(|line| name(line).as_deref() == Some(module)), "module `{module}` exists");
    let later = lines.iter().position(|line| name(line).is_some_and(|other| other.as_str() > module));
    Ok(inserted(&lines, later.unwrap_or(last + 1), &format!("pub mod {module};")))
}

/// The catalogue with one more row: behind the rows of the families before the last of `families`, among those of that
/// family by id.
fn with_row(catalogue: &str, families: &[&str], module: &str) -> Result<String> {
    let lines: Vec<&str> = catalogue.lines().collect();
    let start = lines.iter().position(|line| line.starts_with("pub static METHODS"));
    let start = start.context("needs `pub static METHODS`")? + 1;
    let end =
        start + lines[start..].iter().position(|line| *line == "];").context("needs `];` behind METHODS")?;
    let (family, id) = (families[families.len() - 1], module.replace('_', "-"));
    let before = |line: &&str| {
        let row = line.trim().strip_prefix('&').and_then(|row| row.split_once("::"));
        let Some((of, rest)) = row else { return false };
        let other = rest.split("::").next().unwrap_or_default().replace('_', "-");
        if of == family { other < id } else { families.contains(&of) }
    };
    ensure!(
        lines[start..end].iter().any(|line| line.trim().starts_with(&format!("&{family}::"))),
        "needs a first row of family `{family}`"
    );
    let at = lines[start..end].iter().rposition(before).map_or(start, |last| start + last + 1);
    let row = format!("    &{family}::{module}::{},", module.to_uppercase());
    Ok(inserted(&lines, at, &row))
}

fn inserted(lines: &[&str], at: usize, line: &str) -> String {
    let mut lines = lines.to_vec();
    lines.insert(at, line);
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A copy of the files that are read or changed.
    fn copy() -> tempfile::TempDir {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let folder = tempfile::tempdir().unwrap();
        let source = "crates/hone-methods/src";
        for family in ["imitate", "preference", "refine"] {
            std::fs::create_dir_all(folder.path().join(source).join(family)).unwrap();
            let list = format!("{source}/{family}/mod.rs");
            std::fs::copy(root.join(&list), folder.path().join(&list)).unwrap();
        }
        for file in ["catalogue.rs", "method.rs"] {
            let file = format!("{source}/{file}");
            std::fs::copy(root.join(&file), folder.path().join(&file)).unwrap();
        }
        std::fs::create_dir(folder.path().join("recipes")).unwrap();
        folder
    }

    fn lines_around(text: &str, line: &str) -> [String; 2] {
        let lines: Vec<&str> = text.lines().collect();
        let at = lines.iter().position(|l| l.trim() == line).unwrap();
        [lines[at - 1].trim().to_string(), lines[at + 1].trim().to_string()]
    }

    #[test]
    fn a_method_gets_its_files_its_line_and_its_row() {
        let folder = copy();
        let written = start(folder.path(), "preference", "kto-pairs", "KTO on pairs").unwrap();
        assert_eq!(written.len(), 4);
        let [source, recipe, list, catalogue] =
            [0, 1, 2, 3].map(|i| std::fs::read_to_string(&written[i]).unwrap());
        assert!(
            written[0].ends_with("src/preference/kto_pairs.rs")
                && written[1].ends_with("recipes/kto-pairs.toml")
        );
        for heading in ["What it does", "Feedback", "Departs from the paper", "Claim", "Source"] {
            assert!(source.contains(&format!("    /// # {heading}\n")), "{heading}");
        }
        for part in [
            "pub static KTO_PAIRS: Method",
            "id: \"kto-pairs\", name: \"KTO on pairs\", family: Family::Preference,",
            "pub struct KtoPairs {",
            "fn claim_edits_become_likelier()",
        ] {
            assert!(source.contains(part), "{part}");
        }
        assert!(!format!("{source}{recipe}").contains("{{"), "a place was left empty");
        assert!(recipe.contains("\nmethod = \"kto-pairs\"\n"));
        // Whatever the neighbours are by now, they stand in order.
        for (text, line) in
            [(&list, "pub mod kto_pairs;"), (&catalogue, "&preference::kto_pairs::KTO_PAIRS,")]
        {
            let [before, after] = lines_around(text, line);
            assert!(before.as_str() < line && line < after.as_str(), "{before} {line} {after}");
        }
    }

    #[test]
    fn the_first_and_the_last_of_a_family_stay_in_it() {
        let folder = copy();
        start(folder.path(), "preference", "aa", "First").unwrap();
        start(folder.path(), "preference", "zz", "Last").unwrap();
        let path = folder.path().join("crates/hone-methods/src/catalogue.rs");
        let catalogue = std::fs::read_to_string(path).unwrap();
        let [before, after] = lines_around(&catalogue, "&preference::aa::AA,");
        assert!(
            !before.starts_with("&preference::") && after.starts_with("&preference::"),
            "{before} {after}"
        );
        let [before, after] = lines_around(&catalogue, "&preference::zz::ZZ,");
        assert!(
            before.starts_with("&preference::") && !after.starts_with("&preference::"),
            "{before} {after}"
        );
    }

    #[test]
    fn what_cannot_be_is_refused_and_nothing_is_written() {
        let folder = copy();
        let refused = |family: &str, id: &str, name: &str| {
            start(folder.path(), family, id, name).unwrap_err().to_string()
        };
        assert!(refused("magic", "x", "X").starts_with("family `magic`: needs one of imitate, "));
        assert!(refused("refine", "Bad_Id", "X").contains("lower-case words joined by `-`"));
        assert!(refused("refine", "loop", "X").contains("means something else"));
        assert!(refused("refine", "x", "a \"b\"").contains("without quotes"));
        start(folder.path(), "refine", "x", "X").unwrap();
        assert!(refused("refine", "x", "X").ends_with("x.rs: exists"));
        assert_eq!(std::fs::read_dir(folder.path().join("recipes")).unwrap().count(), 1);
    }
}
