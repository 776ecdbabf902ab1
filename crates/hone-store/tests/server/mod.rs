//! A Postgres server of the test run's own: from Debian's package, on a free port, in a temporary folder.

use std::io::{Error, Result};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A running server; it ends with the value.
pub struct Server {
    folder: tempfile::TempDir,
    bin: PathBuf,
    port: u16,
}

/// Starts a server. None where Postgres is not installed: that is said loudly, and is a failure where
/// `HONE_NEEDS_POSTGRES` is set, as CI does.
pub fn start() -> Option<Server> {
    match installed() {
        Some(bin) => Some(Server::start(bin).expect("a Postgres server that starts")),
        None => {
            let said = "NOT TESTED: Postgres is not installed (apt-get install postgresql)";
            assert!(std::env::var_os("HONE_NEEDS_POSTGRES").is_none(), "{said}");
            eprintln!("{said}");
            None
        }
    }
}

/// The folder of Postgres' programs, the latest version's.
fn installed() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let mut folders: Vec<PathBuf> = versions.flatten().map(|entry| entry.path().join("bin")).collect();
    folders.retain(|folder| folder.join("initdb").exists());
    folders.sort();
    folders.pop()
}

impl Server {
    fn start(bin: PathBuf) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        if is_root() {
            // The server refuses to run as root; the package has made the user.
            run(Command::new("chown").arg("postgres").arg(folder.path()))?;
        }
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let server = Server { folder, bin, port };
        let data = server.data();
        run(server
            .program("initdb")
            .args(["-N", "-A", "trust", "-U", "hone", "-E", "UTF8", "--locale=C", "-D"])
            .arg(&data))?;
        server.up()?;
        Ok(server)
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn program(&self, name: &str) -> Command {
        let path = self.bin.join(name);
        let mut command = if is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(path);
            command
        } else {
            Command::new(path)
        };
        command.current_dir("/");
        command
    }

    /// Starts the server in its folder.
    pub fn up(&self) -> Result<()> {
        let options = format!("-p {} -h 127.0.0.1 -k {}", self.port, self.folder.path().display());
        run(self
            .program("pg_ctl")
            .arg("-D")
            .arg(self.data())
            .arg("-l")
            .arg(self.folder.path().join("log"))
            .args(["-w", "-o", &options, "start"]))
        .map(drop)
    }

    /// Stops it; clients lose their connections.
    pub fn down(&self) -> Result<()> {
        run(self.program("pg_ctl").arg("-D").arg(self.data()).args(["-m", "immediate", "-w", "stop"]))
            .map(drop)
    }

    /// The address of a new database.
    pub fn database(&self, name: &str) -> Result<String> {
        let port = self.port.to_string();
        run(self.program("createdb").args(["-h", "127.0.0.1", "-p", &port, "-U", "hone", name]))?;
        Ok(format!("postgres://hone@127.0.0.1:{port}/{name}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.down();
    }
}

fn run(command: &mut Command) -> Result<Output> {
    // The server would keep pipes of its own output open.
    let output = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).output()?;
    if output.status.success() {
        return Ok(output);
    }
    Err(Error::other(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr))))
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    Path::new("/proc/self").metadata().is_ok_and(|about| about.uid() == 0)
}
