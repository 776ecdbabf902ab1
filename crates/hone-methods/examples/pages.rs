//! Writes what is generated from the catalogue: the page of every method, their index, and the table in README.md
//! between `<!-- methods -->` and `<!-- /methods -->`. `cargo xtask docs --write` runs it.

use std::path::Path;

use hone_methods::docs;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    docs::write(&root.join("docs/methods"))?;
    docs::write_table(&root.join("README.md"))?;
    Ok(())
}
