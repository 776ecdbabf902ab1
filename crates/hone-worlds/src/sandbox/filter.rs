//! The seccomp filters: what a program may ask of the kernel.
//!
//! An allow-list: whatever is not named fails with `EPERM`, as it would for a program without rights. Two filters
//! work together, because one can give only one answer to what it catches: the second makes `clone3` fail with
//! `ENOSYS`, on which the C library falls back to `clone`, whose flags can be looked at.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

/// Flags of `clone` that make a namespace.
const NEW_NAMESPACES: u64 = 0x7e02_0080;

/// Calls that are harmless in a process shut by Landlock, namespaces and limits. Reading and writing open files,
/// memory, time, own signals, own processes, folders under Landlock's eye.
const ALLOWED: &[i64] = &[
    // Files that are open, and folders.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_statx,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_chdir,
    libc::SYS_fchdir,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_renameat2,
    libc::SYS_symlinkat,
    libc::SYS_linkat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_utimensat,
    libc::SYS_truncate,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_fadvise64,
    libc::SYS_copy_file_range,
    libc::SYS_sendfile,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_umask,
    libc::SYS_fcntl,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_pipe2,
    libc::SYS_memfd_create,
    // Waiting.
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_timerfd_gettime,
    libc::SYS_pidfd_open,
    // A pair of connected sockets reaches nobody; event loops need one.
    libc::SYS_socketpair,
    libc::SYS_shutdown,
    libc::SYS_recvfrom,
    libc::SYS_getsockopt,
    // Memory.
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_mincore,
    libc::SYS_membarrier,
    // Time.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_times,
    libc::SYS_getitimer,
    libc::SYS_setitimer,
    libc::SYS_timer_create,
    libc::SYS_timer_settime,
    libc::SYS_timer_delete,
    // The process itself and its children.
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getresuid,
    libc::SYS_getresgid,
    libc::SYS_getgroups,
    libc::SYS_getpgid,
    libc::SYS_setpgid,
    libc::SYS_getsid,
    libc::SYS_setsid,
    libc::SYS_getrlimit,
    libc::SYS_setrlimit,
    libc::SYS_prlimit64,
    libc::SYS_getrusage,
    libc::SYS_getpriority,
    libc::SYS_setpriority,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_setaffinity,
    libc::SYS_getcpu,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_getrandom,
    libc::SYS_set_tid_address,
    libc::SYS_set_robust_list,
    libc::SYS_get_robust_list,
    libc::SYS_rseq,
    libc::SYS_futex,
    libc::SYS_capget,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_wait4,
    libc::SYS_waitid,
    libc::SYS_restart_syscall,
    // Signals; there is nobody outside the process namespace to send them to.
    libc::SYS_kill,
    libc::SYS_tgkill,
    libc::SYS_tkill,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigsuspend,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_sigaltstack,
];

/// Older calls that only this machine type has.
#[cfg(target_arch = "x86_64")]
const ALLOWED_HERE: &[i64] = &[
    libc::SYS_open,
    libc::SYS_creat,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_getdents,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_unlink,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_symlink,
    libc::SYS_link,
    libc::SYS_chmod,
    libc::SYS_utime,
    libc::SYS_utimes,
    libc::SYS_pipe,
    libc::SYS_dup2,
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_epoll_create,
    libc::SYS_epoll_wait,
    libc::SYS_eventfd,
    libc::SYS_alarm,
    libc::SYS_pause,
    libc::SYS_time,
    libc::SYS_getpgrp,
    libc::SYS_arch_prctl,
    libc::SYS_fork,
    libc::SYS_vfork,
];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_HERE: &[i64] = &[libc::SYS_renameat];

/// The filters of a program, in the order in which they are installed.
///
/// # Errors
/// The reason, on a machine type that the filter compiler does not know.
pub(super) fn program_filters() -> Result<Vec<BpfProgram>, String> {
    let arch: TargetArch =
        std::env::consts::ARCH.try_into().map_err(|error: seccompiler::BackendError| error.to_string())?;
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().chain(ALLOWED_HERE).map(|call| (*call, Vec::new())).collect();
    let when = |argument, length, operator, value| -> Result<SeccompRule, String> {
        let condition = SeccompCondition::new(argument, length, operator, value);
        let rule = condition.and_then(|condition| SeccompRule::new(vec![condition]));
        rule.map_err(|error| error.to_string())
    };
    let no_namespaces = when(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(NEW_NAMESPACES), 0)?;
    rules.insert(libc::SYS_clone, vec![no_namespaces]);
    // Only to the other end of the pair: an address would reach sockets that lie in the file system.
    let no_address = when(4, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0)?;
    rules.insert(libc::SYS_sendto, vec![no_address]);
    // Terminals and network devices are out of reach; these are what a C library asks of a file.
    let asks = [libc::TCGETS, libc::FIONREAD, libc::FIOCLEX, libc::FIONBIO];
    let asks = asks.map(|ask| when(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, ask));
    rules.insert(libc::SYS_ioctl, asks.into_iter().collect::<Result<_, _>>()?);
    // Naming a thread and reading own state; never the signal that follows the server's death, nor dumps.
    let names = [
        libc::PR_SET_NAME,
        libc::PR_GET_NAME,
        libc::PR_GET_DUMPABLE,
        libc::PR_SET_VMA,
        libc::PR_CAPBSET_READ,
    ]
    .map(|name| when(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, name as u64));
    rules.insert(libc::SYS_prctl, names.into_iter().collect::<Result<_, _>>()?);

    let compile = |rules, otherwise, then| -> Result<BpfProgram, String> {
        let filter = SeccompFilter::new(rules, otherwise, then, arch).map_err(|error| error.to_string())?;
        filter.try_into().map_err(|error: seccompiler::BackendError| error.to_string())
    };
    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    let clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let no_clone3 = SeccompAction::Errno(libc::ENOSYS as u32);
    // The kernel takes the sterner answer of the two, so `clone3` fails although the list lets it through. The list
    // comes last: it would forbid to install another.
    rules.insert(libc::SYS_clone3, Vec::new());
    Ok(vec![compile(clone3, SeccompAction::Allow, no_clone3)?, compile(rules, refuse, SeccompAction::Allow)?])
}

/// The instructions as the kernel reads them: 8 bytes each, in the byte order of this machine.
pub(super) fn bytes(program: &BpfProgram) -> Vec<u8> {
    let instruction = |filter: &seccompiler::sock_filter| {
        let mut bytes = filter.code.to_ne_bytes().to_vec();
        bytes.extend([filter.jt, filter.jf]);
        bytes.extend(filter.k.to_ne_bytes());
        bytes
    };
    program.iter().flat_map(instruction).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dangerous_calls_are_not_on_the_list() {
        let dangerous = [
            libc::SYS_socket,
            libc::SYS_connect,
            libc::SYS_bind,
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_mount,
            libc::SYS_umount2,
            libc::SYS_pivot_root,
            libc::SYS_unshare,
            libc::SYS_setns,
            libc::SYS_bpf,
            libc::SYS_keyctl,
            libc::SYS_add_key,
            libc::SYS_perf_event_open,
            libc::SYS_userfaultfd,
            libc::SYS_io_uring_setup,
            libc::SYS_clone3,
            libc::SYS_pidfd_getfd,
            libc::SYS_pidfd_send_signal,
            libc::SYS_init_module,
            libc::SYS_reboot,
            libc::SYS_setuid,
            libc::SYS_capset,
            libc::SYS_shmget,
            libc::SYS_open_by_handle_at,
        ];
        for call in dangerous {
            assert!(!ALLOWED.contains(&call) && !ALLOWED_HERE.contains(&call), "{call}");
        }
    }

    #[test]
    fn filters_fit_the_kernel() {
        let filters = program_filters().unwrap();
        assert_eq!(filters.len(), 2);
        for filter in &filters {
            // BPF_MAXINSNS.
            assert!(filter.len() <= 4096, "{}", filter.len());
            assert_eq!(bytes(filter).len(), 8 * filter.len());
        }
    }
}
