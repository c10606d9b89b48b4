//! A seccomp filter that has the kernel refuse io_uring, as the default profile of container engines does.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

/// io_uring_setup, io_uring_enter and io_uring_register: the same numbers on all architectures.
const IO_URING_CALLS: [i64; 3] = [425, 426, 427];
const EPERM: u32 = 1;

/// Installs the filter in the process that `command` starts, and in all that it starts.
pub(crate) fn refuse_io_uring(command: &mut Command) {
    let rules: BTreeMap<_, _> = IO_URING_CALLS.iter().map(|call| (*call, Vec::new())).collect();
    let arch = std::env::consts::ARCH.try_into().expect("an architecture that seccompiler knows");
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(EPERM), arch)
        .expect("a filter of three system calls");
    let program: BpfProgram = filter.try_into().expect("a filter of three system calls");
    let install = move || seccompiler::apply_filter(&program).map_err(std::io::Error::other);
    // SAFETY: between fork and exec the closure only makes two system calls (prctl, seccomp) with memory that was
    // allocated before; it allocates only to report that they failed, in which case the child ends.
    unsafe {
        command.pre_exec(install);
    }
}
