//! Running programs that nobody has read.
//!
//! A [`Sandbox`] runs Python programs and any other executable in children that are shut in five ways at once:
//!
//! - **Landlock**: no file can be read but those the interpreter needs, none written outside a scratch folder;
//! - **seccomp**: an allow-list of system calls; no sockets, no tracing, no mounting, no new namespaces;
//! - **namespaces** of users, processes, network, mounts, messages and host name: no interface to send by, no process
//!   to signal, no privilege, and a scratch folder in memory of limited size;
//! - **limits** on processor time, wall time, memory, output, files and processes;
//! - **no privilege**: a sandbox started by root runs as a user that owns nothing, without capabilities.
//!
//! A kernel that cannot give one of these is refused with the part named, unless [`Mode::Weak`] is asked for.
//!
//! # How a Python program is judged
//! [`Sandbox::judge`] runs the program in one process and its tests in another, which calls the program's functions
//! from outside and compares plain values itself (`driver.py` has both). The
//! verdict is [`Verdict::Passed`] only if the tests' process hands over a secret token that the program's process
//! never held. So leaving early with status 0, patching what compares, reading the tests, or returning an object
//! that calls itself equal to everything does not pass.
//!
//! Tests reach the program's functions, classes and plain values by name. Arguments and results cross as plain data
//! (numbers, strings, bytes, lists, tuples, sets, dicts, dates, decimals, fractions); other objects stay with the
//! program and are handled by number.
//!
//! # Speed
//! A server per worker has the interpreter and the usual modules loaded and forks for each program, so that a short
//! program costs a few milliseconds, less than starting an interpreter. Servers are kept and reused; one that a
//! program left dirty is thrown away.

mod cage;
mod command;
mod filter;
mod kernel;
mod python;
mod server;

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

pub use command::{Finished, insert_token, passed_by_token};
pub use kernel::{Kernel, Missing, Part};
pub use python::Python;

use cage::Plan;
use server::Server;

/// Why nothing was run. What a program does is never an error, but a [`Verdict`].
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The kernel cannot give all parts.
    #[error("sandbox: this kernel lacks {}; or accept a weaker sandbox (--sandbox=weak)", list(missing))]
    Missing {
        /// What it lacks, and why.
        missing: Vec<Missing>,
    },

    /// There is no Python to run programs with.
    #[error(
        "sandbox: {found}; install python3, version 3.9 or later with its standard library, for all users"
    )]
    NoInterpreter {
        /// What was found instead.
        found: String,
    },

    /// A limit that nothing can run under.
    #[error("sandbox: limit {limit}: needs {needed}, got {got}")]
    Limit {
        /// Name of the limit.
        limit: &'static str,
        /// What is allowed.
        needed: &'static str,
        /// What was asked for.
        got: String,
    },

    /// The executable could not be started.
    #[error("sandbox: {what}: {source}")]
    Start {
        /// What was to be started.
        what: String,
        /// The system's reason.
        source: io::Error,
    },

    /// The server broke, not the program; another one is started for the next job.
    #[error("sandbox: the server ended: {0}")]
    Server(String),
}

fn list(missing: &[Missing]) -> String {
    missing.iter().map(Missing::to_string).collect::<Vec<_>>().join("; and ")
}

/// Whether a kernel must give every part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Every part, or nothing is run.
    #[default]
    Strict,
    /// As many parts as there are. For trusted programs only.
    Weak,
}

/// What a program may use.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Time from start to end, at least 10 ms.
    pub wall: Duration,
    /// Processor seconds of one process, at least 1.
    pub cpu: u64,
    /// Address space of one process in bytes, at least 64 MiB.
    pub memory: u64,
    /// Bytes of standard output and error together that are kept; more ends the program.
    pub output: usize,
    /// Processes and threads at once, at least 1.
    pub processes: u32,
}

impl Default for Limits {
    /// Five seconds of wall time (as in the published protocols), 256 MiB, 64 KiB of output, 8 processes.
    fn default() -> Self {
        Limits { wall: Duration::from_secs(5), cpu: 5, memory: 256 << 20, output: 64 << 10, processes: 8 }
    }
}

impl Limits {
    fn validate(&self) -> Result<(), SandboxError> {
        let refuse = |limit, needed, got: String| Err(SandboxError::Limit { limit, needed, got });
        if self.wall < Duration::from_millis(10) {
            return refuse("wall", "at least 10 ms", format!("{:?}", self.wall));
        }
        if self.cpu == 0 {
            return refuse("cpu", "at least 1 s", "0".into());
        }
        if self.memory < 64 << 20 {
            return refuse("memory", "at least 64 MiB", format!("{} bytes", self.memory));
        }
        if self.processes == 0 {
            return refuse("processes", "at least 1", "0".into());
        }
        Ok(())
    }

    /// The limits as the kernel takes them. Two processes of ours count among those of the namespace.
    fn resources(&self, plan: &Plan) -> Vec<(libc::__rlimit_resource_t, u64)> {
        let mut resources = vec![
            (libc::RLIMIT_AS, self.memory),
            (libc::RLIMIT_CPU, self.cpu),
            (libc::RLIMIT_FSIZE, plan.disk),
            (libc::RLIMIT_NOFILE, 64),
            (libc::RLIMIT_CORE, 0),
            (libc::RLIMIT_MSGQUEUE, 0),
        ];
        if plan.namespaces {
            resources.push((libc::RLIMIT_NPROC, u64::from(self.processes) + 1));
        }
        resources
    }
}

/// Bytes that a scratch folder holds.
pub const DISK: u64 = 16 << 20;

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Every test passed, and the token was shown.
    Passed,
    /// A test failed or the program raised an exception.
    Failed {
        /// Type of the exception: `AssertionError`, `NameError`, `SyntaxError`, …
        kind: String,
        /// The traceback, with the program's own frames and lines only.
        text: String,
        /// Line of the program, counted from 1, where the exception arose in the program.
        line: Option<usize>,
        /// Index of the first test that failed.
        test: usize,
    },
    /// The program ended before the tests did.
    Ended {
        /// Its exit status, or the negative number of the signal that ended it.
        status: i32,
    },
    /// It ran past the wall-time limit.
    TimedOut,
    /// It used up its processor time.
    CpuLimit,
    /// It wrote more than is kept.
    OutputLimit,
}

impl Verdict {
    /// A short text for feedback: the traceback, or what happened.
    pub fn text(&self) -> String {
        match self {
            Verdict::Passed => "all tests pass".to_string(),
            Verdict::Failed { text, .. } => text.clone(),
            Verdict::Ended { status } if *status < 0 => format!("ended by signal {}", -status),
            Verdict::Ended { status } => format!("ended early with status {status}"),
            Verdict::TimedOut => "timed out".to_string(),
            Verdict::CpuLimit => "used too much time".to_string(),
            Verdict::OutputLimit => "printed too much".to_string(),
        }
    }
}

/// A Python program and its tests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Job {
    /// The program.
    pub program: String,
    /// Statements run once before the tests, in their process.
    pub setup: String,
    /// Tests, each one or more statements; one that raises has failed.
    pub tests: Vec<String>,
}

/// What a judged program did.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// How it ended.
    pub verdict: Verdict,
    /// Which tests passed, as far as they were run. All of them are run unless the program ends.
    pub passed: Vec<bool>,
    /// What it wrote to standard output, as far as kept.
    pub stdout: String,
    /// What it wrote to standard error, as far as kept.
    pub stderr: String,
    /// Wall time.
    pub wall: Duration,
    /// Processor time of the program's process.
    pub cpu: Duration,
}

/// A place to run programs in. Shared between threads; each running job has a server of its own.
#[derive(Debug)]
pub struct Sandbox {
    kernel: Kernel,
    python: Python,
    limits: Limits,
    idle: Mutex<Vec<Server>>,
}

impl Sandbox {
    /// A sandbox with these limits.
    /// # Errors
    /// [`SandboxError::Missing`] if the mode is strict and the kernel lacks a part;
    /// [`SandboxError::NoInterpreter`], [`SandboxError::Limit`].
    pub fn open(mode: Mode, limits: Limits) -> Result<Self, SandboxError> {
        Sandbox::with_kernel(mode, limits, Kernel::probe())
    }

    /// As [`Sandbox::open`], on a kernel said to give these parts and no others.
    /// # Errors
    /// As [`Sandbox::open`].
    pub fn with_kernel(mode: Mode, limits: Limits, kernel: Kernel) -> Result<Self, SandboxError> {
        limits.validate()?;
        let missing = kernel.missing();
        if mode == Mode::Strict && !missing.is_empty() {
            return Err(SandboxError::Missing { missing });
        }
        Ok(Sandbox { kernel, python: python::find()?, limits, idle: Mutex::new(Vec::new()) })
    }

    /// What the kernel gives.
    pub fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// The interpreter.
    pub fn python(&self) -> &Python {
        &self.python
    }

    /// The limits of every program.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Starts servers until this many are idle, so that the first programs do not wait for them.
    /// # Errors
    /// [`SandboxError::Start`] if one does not start.
    pub fn warm(&self, count: usize) -> Result<(), SandboxError> {
        while self.idle().len() < count {
            let server = Server::start(self)?;
            self.idle().push(server);
        }
        Ok(())
    }

    /// Runs a program against its tests.
    /// # Errors
    /// [`SandboxError::Start`], [`SandboxError::Server`]; never for what the program does.
    pub fn judge(&self, job: &Job) -> Result<Report, SandboxError> {
        self.with_server(|server| server.judge(job, &self.limits))
    }

    /// Runs a Python script on its own, with these files beside it.
    ///
    /// An exception that ends it is written to standard error with the script's own frames and lines only.
    /// # Errors
    /// As [`Sandbox::judge`].
    pub fn script(&self, program: &str, files: &[(&str, &str)]) -> Result<Finished, SandboxError> {
        self.with_server(|server| server.script(program, files, &self.limits))
    }

    /// A server that served well goes back; one that broke or was left dirty is dropped, and with it its processes.
    fn with_server<T>(
        &self,
        work: impl FnOnce(&mut Server) -> Result<T, SandboxError>,
    ) -> Result<T, SandboxError> {
        let idle = self.idle().pop();
        let mut server = idle.map_or_else(|| Server::start(self), Ok)?;
        let result = work(&mut server);
        if server.reusable() {
            self.idle().push(server);
        }
        result
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Server>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A plan for a child of this sandbox.
    fn plan(&self, readable: Vec<std::path::PathBuf>) -> Result<Plan, SandboxError> {
        let start = |source| SandboxError::Start { what: "seccomp filter".into(), source };
        let filters = if self.kernel.seccomp {
            filter::program_filters().map_err(|reason| start(io::Error::other(reason)))?
        } else {
            Vec::new()
        };
        Ok(Plan {
            namespaces: self.kernel.namespaces.is_ok(),
            landlock: self.kernel.landlock,
            readable,
            filters,
            limits: None,
            disk: DISK,
            alarm: 0,
            keep: None,
        })
    }
}
