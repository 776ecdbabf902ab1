//! Running any executable in the sandbox, and verdicts by token for test scripts.

use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::cage::{self, Cage};
use super::server::{environment, spent};
use super::{Sandbox, SandboxError};

/// What an executable or a script did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// Exit status, or the negative number of the signal that ended it.
    pub status: i32,
    /// Whether it ran past the wall-time limit.
    pub timed_out: bool,
    /// Whether it wrote more than is kept.
    pub output_limit: bool,
    /// Whether it used up its processor time.
    pub cpu_limit: bool,
    /// Standard output, as far as kept.
    pub stdout: String,
    /// Standard error, as far as kept.
    pub stderr: String,
    /// Wall time.
    pub wall: Duration,
}

/// What any executable may read: system programs and their libraries.
const SYSTEM: &[&str] =
    &["/usr/bin", "/usr/lib", "/usr/lib64", "/usr/libexec", "/bin", "/lib", "/lib64", "/etc/ld.so.cache"];

impl Sandbox {
    /// Runs an executable in an empty scratch folder, with this standard input.
    ///
    /// `readable` are further folders or files it may read, its own among them if it lies outside the system's.
    /// # Errors
    /// [`SandboxError::Start`] if it cannot be started; never for what it does.
    pub fn run(
        &self,
        program: &Path,
        arguments: &[&str],
        input: &str,
        readable: &[PathBuf],
    ) -> Result<Finished, SandboxError> {
        let failed = |source| SandboxError::Start { what: program.display().to_string(), source };
        let scratch = tempfile::Builder::new().prefix("hone-sandbox-").tempdir().map_err(failed)?;
        cage::make_reachable(scratch.path()).map_err(failed)?;
        let mut plan =
            self.plan(SYSTEM.iter().map(PathBuf::from).chain(readable.iter().cloned()).collect())?;
        plan.limits = Some(self.limits().clone());
        plan.alarm = u32::try_from(self.limits().wall.as_secs() + 2).unwrap_or(u32::MAX);
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .envs(environment(scratch.path()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Cage::new(&plan, scratch.path()).map_err(failed)?.apply(&mut command);
        let started = Instant::now();
        let mut child = command.spawn().map_err(failed)?;
        let pid = child.id() as i32;
        if let Some(mut stdin) = child.stdin.take() {
            let input = input.as_bytes().to_vec();
            // A program that does not read its input must not stop us; the thread ends when it does.
            std::thread::spawn(move || {
                let _ = stdin.write_all(&input);
            });
        }
        let deadline = started + self.limits().wall;
        let (Some(out), Some(err)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(failed(io::Error::other("its pipes are missing")));
        };
        let mut kept = Kept { budget: self.limits().output, texts: [Vec::new(), Vec::new()], over: false };
        let timed_out = kept.read(out, err, deadline) || !wait_until(pid, deadline);
        // SAFETY: the child has not been waited for, so its number is still its own.
        unsafe { libc::kill(-pid, libc::SIGKILL) };
        unsafe { libc::kill(pid, libc::SIGKILL) };
        let (status, cpu) = reap(pid).map_err(failed)?;
        let [out, err] = kept.texts.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        Ok(Finished {
            status,
            timed_out: timed_out && !kept.over,
            output_limit: kept.over,
            cpu_limit: status == -libc::SIGKILL && spent(cpu, self.limits()),
            stdout: out,
            stderr: err,
            wall: started.elapsed(),
        })
    }
}

/// Output as it comes, up to a budget.
struct Kept {
    budget: usize,
    texts: [Vec<u8>; 2],
    over: bool,
}

impl Kept {
    /// Reads both until they end, the budget is spent or the deadline passes; true for the last.
    fn read(
        &mut self,
        mut out: impl Read + AsRawFd,
        mut err: impl Read + AsRawFd,
        deadline: Instant,
    ) -> bool {
        let mut open = [true, true];
        let mut buffer = vec![0; 1 << 16];
        while open[0] || open[1] {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            let entry = |fd: i32, open: bool| libc::pollfd {
                fd: if open { fd } else { -1 },
                events: libc::POLLIN,
                revents: 0,
            };
            let mut waits = [entry(out.as_raw_fd(), open[0]), entry(err.as_raw_fd(), open[1])];
            let millis = i32::try_from(left.as_millis()).unwrap_or(i32::MAX).max(1);
            // SAFETY: two entries, which outlive the call.
            unsafe { libc::poll(waits.as_mut_ptr(), 2, millis) };
            for index in 0..2 {
                if waits[index].revents == 0 {
                    continue;
                }
                let count = if index == 0 { out.read(&mut buffer) } else { err.read(&mut buffer) };
                let count = count.unwrap_or(0);
                open[index] = count > 0;
                let taken = count.min(self.budget);
                self.texts[index].extend(&buffer[..taken]);
                self.budget -= taken;
                if count > taken {
                    self.over = true;
                    return false;
                }
            }
        }
        false
    }
}

/// Waits for the end of a child without taking its status; false at the deadline.
fn wait_until(pid: i32, deadline: Instant) -> bool {
    loop {
        // SAFETY: asks for the state of our own child; all-zero is a valid value to be filled.
        let ended = unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
            libc::waitid(libc::P_PID, pid as u32, &raw mut info, flags) == 0 && info.si_pid() == pid
        };
        if ended || Instant::now() >= deadline {
            return ended;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Status and processor seconds of an ended child, those of its own children included.
fn reap(pid: i32) -> io::Result<(i32, f64)> {
    let mut status = 0;
    // SAFETY: all-zero is a valid value to be filled; the child is ours and not yet waited for.
    let used = unsafe {
        let mut used: libc::rusage = std::mem::zeroed();
        while libc::wait4(pid, &raw mut status, 0, &raw mut used) < 0 {
            if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
                return Err(io::Error::last_os_error());
            }
        }
        used
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    let code = if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { -libc::WTERMSIG(status) };
    Ok((code, seconds(used.ru_utime) + seconds(used.ru_stime)))
}

/// A test script that prints the token just before it ends well, or `None` if it never does.
///
/// The token goes before every `sys.exit(0)` and `sys.exit(exit_code)` line, at that line's depth. A script without
/// one cannot be judged and must be refused when it is loaded.
pub fn insert_token(script: &str, token: &str) -> Option<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut found = false;
    for line in script.lines() {
        if line.contains("sys.exit(0)") || line.contains("sys.exit(exit_code)") {
            let depth: String = line.chars().take_while(|c| c.is_whitespace()).collect();
            lines.push(format!("{depth}print({token:?}, flush=True)"));
            found = true;
        }
        lines.push(line.to_string());
    }
    found.then(|| lines.join("\n") + "\n")
}

/// Whether a script with an inserted token passed: status 0 and the token in its output.
pub fn passed_by_token(finished: &Finished, token: &str) -> bool {
    finished.status == 0 && !finished.timed_out && finished.stdout.contains(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_stands_before_a_good_end() {
        let script = "import sys\nif bad():\n    sys.exit(1)\nif good():\n    sys.exit(0)\n";
        let marked = insert_token(script, "t").unwrap();
        assert_eq!(
            marked,
            "import sys\nif bad():\n    sys.exit(1)\nif good():\n    print(\"t\", flush=True)\n    sys.exit(0)\n"
        );
        assert_eq!(insert_token("print(1)", "t"), None);
    }
}
