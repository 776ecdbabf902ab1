//! What this kernel can give a sandbox, found by trying.

use std::fmt;
use std::io;

use super::cage::{self, Cage};

/// One part of the sandbox that a kernel may lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// Landlock, which shuts the file system except for named folders.
    Landlock,
    /// Seccomp filters, which shut system calls: sockets, tracing, mounting, namespaces.
    Seccomp,
    /// A user namespace, so that limits count for the program alone and no privilege outside exists.
    UserNamespace,
    /// A process namespace, so that no other process can be seen, signalled or left behind.
    ProcessNamespace,
    /// A network namespace without any interface.
    NetworkNamespace,
    /// A mount namespace with a scratch folder of limited size in memory.
    MountNamespace,
}

impl Part {
    /// What to do so that the kernel gives it.
    pub fn remedy(self) -> &'static str {
        match self {
            Part::Landlock => {
                "boot a Linux kernel of 6.2 or later with `landlock` among its security modules"
            }
            Part::Seccomp => "use a Linux kernel built with CONFIG_SECCOMP_FILTER",
            Part::UserNamespace | Part::ProcessNamespace | Part::NetworkNamespace | Part::MountNamespace => {
                "allow unprivileged user namespaces (sysctl kernel.unprivileged_userns_clone=1, \
                 kernel.apparmor_restrict_unprivileged_userns=0, user.max_user_namespaces above 0)"
            }
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Part::Landlock => "Landlock (file access)",
            Part::Seccomp => "seccomp filters (system calls)",
            Part::UserNamespace => "a user namespace (privileges, process limit)",
            Part::ProcessNamespace => "a process namespace (signals, leftover processes)",
            Part::NetworkNamespace => "a network namespace",
            Part::MountNamespace => "a mount namespace (disk limit)",
        })
    }
}

/// A part that is missing, and the reason the kernel gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Which.
    pub part: Part,
    /// Why.
    pub why: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.part, self.why, self.part.remedy())
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// Version of the Landlock interface, 0 if there is none. 3 and later can shut truncation, which is needed.
    pub landlock: i32,
    /// Whether seccomp filters can be installed.
    pub seccomp: bool,
    /// Whether all four namespaces can be had, or the step that failed and why.
    pub namespaces: Result<(), (Part, String)>,
}

impl Kernel {
    /// Tries every part, the namespaces in a child that ends at once.
    pub fn probe() -> Self {
        Kernel { landlock: landlock_version(), seccomp: has_seccomp(), namespaces: try_namespaces() }
    }

    /// The parts that this kernel does not give.
    pub fn missing(&self) -> Vec<Missing> {
        let mut missing = Vec::new();
        if self.landlock < 3 {
            let why = match self.landlock {
                ..=0 => "not there or not enabled".to_string(),
                version => format!("needs interface 3, has {version}"),
            };
            missing.push(Missing { part: Part::Landlock, why });
        }
        if !self.seccomp {
            missing.push(Missing { part: Part::Seccomp, why: "not there".to_string() });
        }
        if let Err((part, why)) = &self.namespaces {
            missing.push(Missing { part: *part, why: why.clone() });
        }
        missing
    }
}

/// The interface version, by the call that asks for it.
fn landlock_version() -> i32 {
    // SAFETY: with these arguments the call reads no memory; it only returns a number.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0, 1) };
    i32::try_from(version).unwrap_or(0).max(0)
}

fn has_seccomp() -> bool {
    let kill_process: u32 = 0x8000_0000;
    // SAFETY: SECCOMP_GET_ACTION_AVAIL (2) reads one u32 through the pointer, which outlives the call.
    unsafe { libc::syscall(libc::SYS_seccomp, 2, 0, std::ptr::from_ref(&kill_process)) == 0 }
}

fn try_namespaces() -> Result<(), (Part, String)> {
    let folder = tempfile::tempdir().map_err(|error| (Part::MountNamespace, error.to_string()))?;
    let cage = Cage::for_probe(folder.path()).map_err(|error| (Part::MountNamespace, error.to_string()))?;
    // SAFETY: the child calls only functions that are safe after a fork and ends with `_exit`.
    let child = unsafe { libc::fork() };
    if child < 0 {
        return Err((Part::UserNamespace, io::Error::last_os_error().to_string()));
    }
    if child == 0 {
        let code = match cage.enter_namespaces() {
            Ok(()) => 0,
            Err((step, error)) => i32::from(step) * 64 + error.raw_os_error().unwrap_or(0).min(63),
        };
        // SAFETY: ends the child without running anything of the parent's.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: waits for the child made above.
    while unsafe { libc::waitpid(child, &raw mut status, 0) } < 0 {
        if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return Err((Part::UserNamespace, io::Error::last_os_error().to_string()));
        }
    }
    if !libc::WIFEXITED(status) {
        return Err((Part::UserNamespace, format!("the trial ended with status {status}")));
    }
    let code = libc::WEXITSTATUS(status);
    let why = io::Error::from_raw_os_error(code % 64).to_string();
    match (code, (code / 64) as u8) {
        (0, _) => Ok(()),
        (_, cage::STEP_MOUNT) => Err((Part::MountNamespace, why)),
        _ => Err((Part::UserNamespace, why)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_missing_part_is_named_with_its_remedy() {
        let kernel = Kernel {
            landlock: 2,
            seccomp: false,
            namespaces: Err((Part::UserNamespace, "Operation not permitted".into())),
        };
        let said: Vec<String> = kernel.missing().iter().map(Missing::to_string).collect();
        assert!(said[0].starts_with("Landlock (file access): needs interface 3, has 2; boot a Linux kernel"));
        assert!(said[1].starts_with("seccomp filters (system calls): not there; "));
        assert!(
            said[2]
                .starts_with("a user namespace (privileges, process limit): Operation not permitted; allow")
        );
        let whole = Kernel { landlock: 3, seccomp: true, namespaces: Ok(()) };
        assert!(whole.missing().is_empty());
    }
}
