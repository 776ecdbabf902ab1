//! What a child does to itself between `fork` and `exec`.
//!
//! Everything that needs memory is made ready beforehand: after a fork of a process with threads, only functions
//! that are safe in signal handlers may be called.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use landlock::{
    ABI, Access, AccessFs, AccessNet, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr, Scope,
};
use seccompiler::BpfProgram;

use super::Limits;

/// Whom a child of root becomes: a user that owns nothing.
const NOBODY: u32 = 65534;
/// Steps of entering namespaces, told apart in the exit code of the trial.
pub(super) const STEP_USER: u8 = 1;
/// See [`STEP_USER`].
pub(super) const STEP_MOUNT: u8 = 2;

/// What a child may read, and how far the kernel can hold it.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// Whether to enter namespaces.
    pub(super) namespaces: bool,
    /// Version of the Landlock interface; 0 for none.
    pub(super) landlock: i32,
    /// Folders and files the child may read and execute.
    pub(super) readable: Vec<PathBuf>,
    /// Filters to install before `exec`; none for the server, which installs them in its own children.
    pub(super) filters: Vec<BpfProgram>,
    /// Limits to set before `exec`, or `None` for the server.
    pub(super) limits: Option<Limits>,
    /// Bytes that the scratch folder holds.
    pub(super) disk: u64,
    /// Seconds after which the waiting half ends the child whatever the parent does; 0 for never.
    pub(super) alarm: u32,
    /// A descriptor that the child keeps.
    pub(super) keep: Option<i32>,
}

/// A plan with everything made ready for one child.
#[derive(Debug)]
pub(super) struct Cage {
    namespaces: bool,
    become_nobody: bool,
    user_map: Vec<u8>,
    group_map: Vec<u8>,
    scratch: CString,
    mount_options: CString,
    ruleset: Option<OwnedFd>,
    scratch_rights: u64,
    filters: Vec<BpfProgram>,
    limits: Vec<(libc::__rlimit_resource_t, u64)>,
    alarm: u32,
    keep: Option<i32>,
    drop_privileges: bool,
}

/// The interface version as the crate names it.
fn abi(version: i32) -> ABI {
    match version {
        ..=0 => ABI::Unsupported,
        1 => ABI::V1,
        2 => ABI::V2,
        3 => ABI::V3,
        4 => ABI::V4,
        5 => ABI::V5,
        _ => ABI::V6,
    }
}

fn other(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(error.to_string())
}

fn c_string(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(other)
}

impl Cage {
    /// A cage whose scratch folder is this one, which must be empty.
    pub(super) fn new(plan: &Plan, scratch: &Path) -> io::Result<Self> {
        // SAFETY: these calls read nothing but the process's own ids.
        let (user, group) = unsafe { (libc::geteuid(), libc::getegid()) };
        let root = user == 0;
        let (user, group) = if root { (NOBODY, NOBODY) } else { (user, group) };
        if root && !plan.namespaces {
            // Without a mount of its own, the folder itself must belong to whom the child becomes.
            std::os::unix::fs::chown(scratch, Some(user), Some(group))?;
        }
        let abi = abi(plan.landlock);
        let (ruleset, rights) = if plan.landlock > 0 {
            (Some(ruleset(abi, &plan.readable)?), AccessFs::from_all(abi).bits())
        } else {
            (None, 0)
        };
        Ok(Cage {
            namespaces: plan.namespaces,
            become_nobody: root,
            user_map: format!("0 {user} 1\n").into_bytes(),
            group_map: format!("0 {group} 1\n").into_bytes(),
            scratch: c_string(scratch)?,
            mount_options: CString::new(format!("size={},nr_inodes=2048,mode=0755", plan.disk))
                .map_err(other)?,
            ruleset,
            scratch_rights: rights,
            filters: plan.filters.clone(),
            limits: plan.limits.as_ref().map(|limits| limits.resources(plan)).unwrap_or_default(),
            alarm: plan.alarm,
            keep: plan.keep,
            drop_privileges: plan.limits.is_some(),
        })
    }

    /// A cage only to try namespaces with.
    pub(super) fn for_probe(scratch: &Path) -> io::Result<Self> {
        make_reachable(scratch)?;
        let plan = Plan {
            namespaces: true,
            landlock: 0,
            readable: Vec::new(),
            filters: Vec::new(),
            limits: None,
            disk: 1 << 20,
            alarm: 0,
            keep: None,
        };
        Cage::new(&plan, scratch)
    }

    /// Puts every child of the command into the cage.
    pub(super) fn apply(self, command: &mut Command) {
        // SAFETY: `enter` calls only functions that are safe after a fork, and allocates nothing.
        unsafe { command.pre_exec(move || self.enter()) };
    }

    fn enter(&self) -> io::Result<()> {
        // SAFETY: plain system calls on values that live as long as `self`.
        unsafe {
            // Everything this process has open stays behind at `exec`, also what a library opened carelessly.
            libc::syscall(libc::SYS_close_range, 3, u32::MAX, 4);
            if let Some(fd) = self.keep {
                check(libc::fcntl(fd, libc::F_SETFD, 0))?;
            }
            check(libc::setsid())?;
        }
        if self.namespaces {
            self.enter_namespaces().map_err(|(_, error)| error)?;
            self.split()?;
        } else if self.become_nobody {
            self.give_up_root()?;
        }
        // SAFETY: as above; the ruleset's descriptor is open in this child.
        unsafe {
            check(libc::chdir(self.scratch.as_ptr()))?;
            for (resource, value) in &self.limits {
                let limit = libc::rlimit { rlim_cur: *value, rlim_max: *value };
                check(libc::setrlimit(*resource, &raw const limit))?;
            }
            check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
            if let Some(ruleset) = &self.ruleset {
                self.add_scratch(ruleset.as_raw_fd())?;
                check(libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) as i32)?;
            }
            if self.drop_privileges {
                // Version 3 of the capability interface, this process, no capability in any set.
                let header = [0x2008_0522_u32, 0];
                let none = [0_u32; 6];
                check(libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) as i32)?;
            }
        }
        for filter in &self.filters {
            seccompiler::apply_filter(filter).map_err(|_| io::Error::last_os_error())?;
        }
        Ok(())
    }

    /// From here on, a privilege outside is gone, and one inside is worth nothing outside.
    ///
    /// On failure, the step and the reason.
    pub(super) fn enter_namespaces(&self) -> Result<(), (u8, io::Error)> {
        let user = |error| (STEP_USER, error);
        let mount = |error| (STEP_MOUNT, error);
        if self.become_nobody {
            self.give_up_root().map_err(user)?;
        }
        let flags = libc::CLONE_NEWUSER
            | libc::CLONE_NEWNS
            | libc::CLONE_NEWPID
            | libc::CLONE_NEWNET
            | libc::CLONE_NEWIPC
            | libc::CLONE_NEWUTS;
        // SAFETY: plain system calls on constant strings and on strings that live as long as `self`.
        unsafe {
            check(libc::unshare(flags)).map_err(user)?;
            write_file(c"/proc/self/setgroups", b"deny").map_err(user)?;
            write_file(c"/proc/self/uid_map", &self.user_map).map_err(user)?;
            write_file(c"/proc/self/gid_map", &self.group_map).map_err(user)?;
            check(libc::sethostname(c"sandbox".as_ptr(), 7)).map_err(user)?;
            let private = libc::MS_REC | libc::MS_PRIVATE;
            let none = std::ptr::null();
            check(libc::mount(none, c"/".as_ptr(), none, private, none.cast())).map_err(mount)?;
            check(libc::mount(
                c"tmpfs".as_ptr(),
                self.scratch.as_ptr(),
                c"tmpfs".as_ptr(),
                libc::MS_NOSUID | libc::MS_NODEV,
                self.mount_options.as_ptr().cast(),
            ))
            .map_err(mount)
        }
    }

    fn give_up_root(&self) -> io::Result<()> {
        // SAFETY: plain system calls.
        unsafe {
            check(libc::setgroups(0, std::ptr::null()))?;
            check(libc::setresgid(NOBODY, NOBODY, NOBODY))?;
            check(libc::setresuid(NOBODY, NOBODY, NOBODY))?;
            // A process that changed its user may not write its own maps unless it is dumpable again.
            check(libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0))
        }
    }

    /// Forks into the first process of the new process namespace, which goes on, and one that waits for it.
    ///
    /// The waiting half ends as the other one does. If it is killed, the other is killed, and with it its namespace.
    fn split(&self) -> io::Result<()> {
        // SAFETY: the waiting half touches no memory but its own stack and ends with `_exit`.
        unsafe {
            let child = libc::fork();
            check(child)?;
            if child == 0 {
                return check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0));
            }
            libc::syscall(libc::SYS_close_range, 0, u32::MAX, 0);
            libc::alarm(self.alarm);
            let mut status = 0;
            while libc::waitpid(child, &raw mut status, 0) < 0 {
                if *libc::__errno_location() != libc::EINTR {
                    libc::_exit(126);
                }
            }
            if libc::WIFSIGNALED(status) {
                // The same end for the same reason; no second core file.
                let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
                libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
                libc::signal(libc::WTERMSIG(status), libc::SIG_DFL);
                libc::kill(libc::getpid(), libc::WTERMSIG(status));
            }
            libc::_exit(libc::WEXITSTATUS(status));
        }
    }

    /// The scratch folder's rule is made here, because only the child sees what is mounted there.
    ///
    /// # Safety
    /// `ruleset` must be an open descriptor of a ruleset.
    unsafe fn add_scratch(&self, ruleset: i32) -> io::Result<()> {
        #[repr(C, packed)]
        struct PathBeneathAttr {
            allowed: u64,
            parent: i32,
        }
        // SAFETY: `attr` has the layout the call reads (rule type 1) and outlives it.
        unsafe {
            let folder = libc::open(self.scratch.as_ptr(), libc::O_PATH | libc::O_CLOEXEC);
            check(folder)?;
            let attr = PathBeneathAttr { allowed: self.scratch_rights, parent: folder };
            let added = libc::syscall(libc::SYS_landlock_add_rule, ruleset, 1, &raw const attr, 0);
            let result = check(added as i32);
            libc::close(folder);
            result
        }
    }
}

/// A ruleset that shuts everything but reading and executing below these paths, and the harmless devices.
fn ruleset(abi: ABI, readable: &[PathBuf]) -> io::Result<OwnedFd> {
    let mut ruleset = Ruleset::default().handle_access(AccessFs::from_all(abi)).map_err(other)?;
    if abi >= ABI::V4 {
        ruleset = ruleset.handle_access(AccessNet::from_all(abi)).map_err(other)?;
    }
    if abi >= ABI::V6 {
        ruleset = ruleset.scope(Scope::from_all(abi)).map_err(other)?;
    }
    let mut created = ruleset.create().map_err(other)?;
    let read = AccessFs::from_read(abi);
    for path in readable.iter().filter(|path| path.exists()) {
        let rights = if path.is_dir() { read } else { read & AccessFs::from_file(abi) };
        created =
            created.add_rule(PathBeneath::new(PathFd::new(path).map_err(other)?, rights)).map_err(other)?;
    }
    for device in ["/dev/null", "/dev/zero", "/dev/urandom", "/dev/random"] {
        let mut rights = landlock::BitFlags::from(AccessFs::ReadFile);
        if device == "/dev/null" {
            rights |= AccessFs::WriteFile;
        }
        created =
            created.add_rule(PathBeneath::new(PathFd::new(device).map_err(other)?, rights)).map_err(other)?;
    }
    Option::<OwnedFd>::from(created).ok_or_else(|| other("Landlock made no ruleset"))
}

/// Lets a user that owns nothing pass through a folder of ours.
pub(super) fn make_reachable(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))
}

fn check(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// # Safety
/// Safe to call after a fork: opens, writes and closes, nothing else.
unsafe fn write_file(path: &std::ffi::CStr, bytes: &[u8]) -> io::Result<()> {
    // SAFETY: the path and the bytes outlive the calls.
    unsafe {
        let fd = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        check(fd)?;
        let written = libc::write(fd, bytes.as_ptr().cast(), bytes.len());
        let result = check(written as i32);
        libc::close(fd);
        result
    }
}
