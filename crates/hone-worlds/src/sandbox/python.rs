//! Which Python runs programs, and which files it needs.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use super::SandboxError;

/// What the interpreter says of itself. Modules with libraries behind them are loaded, so that their files show.
const ASK: &str = "
import sys, json
try:
    import ctypes, decimal, json, random, hashlib, resource, select, zlib
    lacks = ''
except ImportError as error:
    lacks = str(error)
files = {line.split()[-1] for line in open('/proc/self/maps') if '/' in line}
print(json.dumps({'exe': sys.executable, 'version': list(sys.version_info[:2]), 'path': sys.path,
                  'files': sorted(files), 'lacks': lacks}))
";

/// An interpreter that can run in the sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Python {
    /// The executable itself, no script in front of it.
    pub path: PathBuf,
    /// Major and minor version.
    pub version: (u32, u32),
    /// Folders and files it reads: its library, shared libraries, and itself.
    pub needs: Vec<PathBuf>,
}

#[derive(Deserialize)]
struct Answer {
    exe: PathBuf,
    version: (u32, u32),
    path: Vec<PathBuf>,
    files: Vec<PathBuf>,
    lacks: String,
}

/// The first `python3` of the search path that can run in the sandbox.
///
/// # Errors
/// [`SandboxError::NoInterpreter`] says what is wrong with each one found, and what to install.
pub(super) fn find() -> Result<Python, SandboxError> {
    let search = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&search).collect();
    folders.push("/usr/bin".into());
    let (mut tried, mut why): (Vec<PathBuf>, Vec<String>) = (Vec::new(), Vec::new());
    for folder in folders {
        let path = folder.join("python3");
        if !path.exists() || tried.contains(&path) {
            continue;
        }
        match examine(&path) {
            Ok(python) => return Ok(python),
            Err(reason) => why.push(format!("{}: {reason}", path.display())),
        }
        tried.push(path);
    }
    let found = if why.is_empty() { "no python3 on the search path".to_string() } else { why.join("; ") };
    Err(SandboxError::NoInterpreter { found })
}

fn examine(path: &Path) -> Result<Python, String> {
    let output =
        Command::new(path).args(["-I", "-S", "-c", ASK]).output().map_err(|error| error.to_string())?;
    let answer: Answer = serde_json::from_slice(&output.stdout).map_err(|_| {
        format!("does not run ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim())
    })?;
    if answer.version < (3, 9) {
        return Err(format!("is version {}.{}, needs 3.9", answer.version.0, answer.version.1));
    }
    if !answer.lacks.is_empty() {
        return Err(format!("lacks a standard module ({})", answer.lacks));
    }
    let exe = answer.exe.canonicalize().map_err(|error| error.to_string())?;
    // SAFETY: reads the process's own id.
    if unsafe { libc::geteuid() } == 0 && !for_everyone(&exe) {
        return Err("is not readable for a user without rights, which a sandbox started by root uses".into());
    }
    let mut needs = vec![exe.clone(), PathBuf::from("/etc/ld.so.cache")];
    needs.extend(answer.path.into_iter().filter(|path| path.is_dir()));
    // The folders of its shared libraries: another program may load one that this one did not.
    let library =
        |file: &PathBuf| file.to_string_lossy().contains(".so").then(|| file.parent().map(Path::to_path_buf));
    needs.extend(answer.files.iter().filter_map(library).flatten());
    needs.extend(
        ["/lib64", "/lib", "/usr/lib64"].map(PathBuf::from).into_iter().filter(|path| is_loader(path)),
    );
    needs.sort();
    needs.dedup();
    Ok(Python { path: exe, version: answer.version, needs })
}

/// Whether the folder holds the dynamic loader, which is opened before any library.
fn is_loader(folder: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(folder) else { return false };
    entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("ld-linux"))
}

/// Whether anybody may pass through every folder to the file and read it.
fn for_everyone(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &Path| path.metadata().map_or(0, |data| data.permissions().mode());
    mode(path) & 0o005 == 0o005 && path.ancestors().skip(1).all(|folder| mode(folder) & 0o001 != 0)
}
