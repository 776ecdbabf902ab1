//! The Rust side of the forking server `driver.py`.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::cage::{self, Cage};
use super::command::Finished;
use super::{DISK, Job, Limits, Report, Sandbox, SandboxError, Verdict, filter};

const DRIVER: &str = include_str!("driver.py");
/// How long a server may take beyond a program's wall time: to start, fork, kill and clean up.
const GRACE: Duration = Duration::from_secs(10);
/// Share of the limit from which a program that was killed counts as killed for its processor time. The kernel's limit
/// counts whole clock ticks for whoever runs when one comes, the report exact time: on a busy machine a program was
/// killed at a limit of 1 s when the report said 0.76 s.
const CPU_SHARE: f64 = 0.6;
/// Largest frame that is read: output and verdict are limited well below it.
const FRAME: usize = 64 << 20;

/// One server process, which runs one program at a time.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    jobs: ChildStdin,
    results: ChildStdout,
    secrets: std::fs::File,
    broken: bool,
    // Removed after the child is gone, because fields are dropped in order.
    _scratch: TempDir,
}

/// What the server says of one job.
#[derive(Debug, Deserialize)]
struct Raw {
    status: Option<i32>,
    cpu: f64,
    wall: f64,
    timed_out: bool,
    over: bool,
    out: String,
    err: String,
    verdict: String,
    clean: bool,
}

/// What the verifier says.
#[derive(Debug, Deserialize)]
struct Told {
    token: String,
    results: Vec<Option<Failure>>,
    #[serde(default)]
    ended: bool,
}

#[derive(Debug, Clone, Deserialize)]
struct Failure {
    kind: String,
    text: String,
    line: Option<usize>,
}

impl Server {
    /// Starts a server and waits until it is ready.
    pub(super) fn start(sandbox: &Sandbox) -> Result<Self, SandboxError> {
        let failed =
            |source| SandboxError::Start { what: format!("{}", sandbox.python().path.display()), source };
        let scratch = tempfile::Builder::new().prefix("hone-sandbox-").tempdir().map_err(failed)?;
        cage::make_reachable(scratch.path()).map_err(failed)?;
        let (secrets_in, secrets) = pipe().map_err(failed)?;
        let mut plan = sandbox.plan(sandbox.python().needs.clone())?;
        plan.keep = Some(secrets_in.as_raw_fd());
        let settings = json!({
            // The server's own children install them; it needs calls itself that they must not have.
            "filters": plan.filters.iter().map(|program| hex(&filter::bytes(program))).collect::<Vec<_>>(),
            "clone": libc::SYS_clone,
            "capset": libc::SYS_capset,
            "namespaces": plan.namespaces,
            // The waiting half, the server and the verifier.
            "others": 3,
        });
        plan.filters.clear();
        let cage = Cage::new(&plan, scratch.path()).map_err(failed)?;
        let mut command = Command::new(&sandbox.python().path);
        command
            .args(["-I", "-S", "-B", "-X", "utf8", "-c", DRIVER, &secrets_in.as_raw_fd().to_string()])
            .env_clear()
            .envs(environment(scratch.path()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        cage.apply(&mut command);
        let mut child = command.spawn().map_err(failed)?;
        let (Some(jobs), Some(results)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(SandboxError::Server("its pipes are missing".to_string()));
        };
        let mut server =
            Server { child, jobs, results, secrets: secrets.into(), broken: true, _scratch: scratch };
        let ready: Result<Value, io::Error> =
            send(&mut server.jobs, &settings).and_then(|()| server.receive(Instant::now() + GRACE));
        if let Err(error) = ready {
            return Err(SandboxError::Server(server.last_words(&error)));
        }
        server.broken = false;
        Ok(server)
    }

    /// Whether another program may run here.
    pub(super) fn reusable(&self) -> bool {
        !self.broken
    }

    pub(super) fn judge(&mut self, job: &Job, limits: &Limits) -> Result<Report, SandboxError> {
        let token = token().map_err(|error| SandboxError::Server(error.to_string()))?;
        let secret = json!({"tests": job.tests, "setup": job.setup, "token": token});
        let raw = self.run(&job.program, true, &BTreeMap::new(), Some(&secret), limits)?;
        let told: Option<Told> = serde_json::from_str(&raw.verdict).ok();
        let told = told.filter(|told| told.token == token && told.results.len() <= job.tests.len());
        let results = told.as_ref().map(|told| told.results.clone()).unwrap_or_default();
        let all = told.is_some_and(|told| !told.ended) && results.len() == job.tests.len();
        let failure = results.iter().enumerate().find_map(|(test, result)| Some((test, result.clone()?)));
        let verdict = match failure {
            _ if raw.over => Verdict::OutputLimit,
            _ if raw.timed_out && !used_up(&raw, limits) => Verdict::TimedOut,
            Some((test, Failure { kind, text, line })) if all => Verdict::Failed { kind, text, line, test },
            None if all => Verdict::Passed,
            _ if used_up(&raw, limits) => Verdict::CpuLimit,
            _ => Verdict::Ended { status: exit_status(raw.status) },
        };
        Ok(Report {
            verdict,
            passed: results.iter().map(Option::is_none).collect(),
            stdout: raw.out,
            stderr: raw.err,
            wall: seconds(raw.wall),
            cpu: seconds(raw.cpu),
        })
    }

    pub(super) fn script(
        &mut self,
        program: &str,
        files: &[(&str, &str)],
        limits: &Limits,
    ) -> Result<Finished, SandboxError> {
        let files: BTreeMap<&str, &str> = files.iter().copied().collect();
        if let Some(name) =
            files.keys().find(|name| name.is_empty() || name.contains('/') || name.starts_with('.'))
        {
            let source = io::Error::other("a file beside a script needs a plain name");
            return Err(SandboxError::Start { what: (*name).to_string(), source });
        }
        let raw = self.run(program, false, &files, None, limits)?;
        Ok(Finished {
            status: exit_status(raw.status),
            timed_out: raw.timed_out,
            output_limit: raw.over,
            cpu_limit: used_up(&raw, limits),
            stdout: raw.out,
            stderr: raw.err,
            wall: seconds(raw.wall),
        })
    }

    fn run(
        &mut self,
        program: &str,
        tests: bool,
        files: &BTreeMap<&str, &str>,
        secret: Option<&Value>,
        limits: &Limits,
    ) -> Result<Raw, SandboxError> {
        // Until the report is in, a failure of any sort means that the server must not be used again.
        self.broken = true;
        let job = json!({
            "program": program,
            "tests": tests,
            "files": files,
            "wall": limits.wall.as_secs_f64(),
            "cpu": limits.cpu,
            "memory": limits.memory,
            "output": limits.output,
            "processes": limits.processes,
            "disk": DISK,
        });
        let deadline = Instant::now() + limits.wall + GRACE;
        let exchange = send(&mut self.jobs, &job)
            .and_then(|()| secret.map_or(Ok(()), |secret| send(&mut self.secrets, secret)))
            .and_then(|()| self.receive::<Raw>(deadline));
        match exchange {
            Ok(raw) => {
                self.broken = !raw.clean;
                Ok(raw)
            }
            Err(error) => Err(SandboxError::Server(self.last_words(&error))),
        }
    }

    fn receive<T: serde::de::DeserializeOwned>(&mut self, deadline: Instant) -> io::Result<T> {
        let mut length = [0; 4];
        read_until(&mut self.results, &mut length, deadline)?;
        let length = u32::from_le_bytes(length) as usize;
        if length > FRAME {
            return Err(io::Error::other(format!("a report of {length} bytes")));
        }
        let mut bytes = vec![0; length];
        read_until(&mut self.results, &mut bytes, deadline)?;
        serde_json::from_slice(&bytes).map_err(io::Error::other)
    }

    /// The error, and what the server wrote before it ended.
    fn last_words(&mut self, error: &io::Error) -> String {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let mut said = String::new();
        if let Some(stderr) = self.child.stderr.take() {
            let _ = stderr.take(4000).read_to_string(&mut said);
        }
        if said.trim().is_empty() { error.to_string() } else { format!("{error}: {}", said.trim()) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Killing the waiting half kills the server and with it every process of its namespace.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What every child finds in its environment.
pub(super) fn environment(scratch: &std::path::Path) -> Vec<(&'static str, std::ffi::OsString)> {
    vec![
        ("PATH", "/usr/bin:/bin".into()),
        ("LANG", "C.UTF-8".into()),
        ("HOME", scratch.into()),
        ("TMPDIR", scratch.into()),
        // Sets come in the same order each time: a verdict must not depend on luck.
        ("PYTHONHASHSEED", "0".into()),
    ]
}

/// Whether the kernel ended it for its processor time.
fn used_up(raw: &Raw, limits: &Limits) -> bool {
    let killed = raw.status.is_some() && exit_status(raw.status) == -libc::SIGKILL;
    killed && spent(raw.cpu, limits)
}

/// Whether that many seconds of processor time can have ended a program.
pub(super) fn spent(cpu: f64, limits: &Limits) -> bool {
    cpu >= CPU_SHARE * limits.cpu as f64
}

/// The exit status, or the negative signal; −9 for a program that had to be killed.
fn exit_status(status: Option<i32>) -> i32 {
    match status {
        Some(status) if libc::WIFEXITED(status) => libc::WEXITSTATUS(status),
        Some(status) => -libc::WTERMSIG(status),
        None => -libc::SIGKILL,
    }
}

fn seconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value).unwrap_or_default()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// 128 bits from the kernel, in hex.
pub(super) fn token() -> io::Result<String> {
    let mut bytes = [0_u8; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(hex(&bytes))
}

/// A pipe whose ends no child inherits by accident.
fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: the call fills the two descriptors, which are then owned here alone.
    unsafe {
        if libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok((OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])))
    }
}

fn send(to: &mut impl Write, message: &Value) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    to.write_all(&length.to_le_bytes())?;
    to.write_all(&bytes)?;
    to.flush()
}

/// Fills the buffer or fails at the deadline.
fn read_until(from: &mut ChildStdout, mut buffer: &mut [u8], deadline: Instant) -> io::Result<()> {
    while !buffer.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::from(io::ErrorKind::TimedOut));
        }
        let mut wait = libc::pollfd { fd: from.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let millis = i32::try_from(left.as_millis()).unwrap_or(i32::MAX).max(1);
        // SAFETY: one entry, which outlives the call.
        let ready = unsafe { libc::poll(&raw mut wait, 1, millis) };
        if ready <= 0 {
            continue;
        }
        match from.read(buffer) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            Ok(count) => buffer = &mut buffer[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
