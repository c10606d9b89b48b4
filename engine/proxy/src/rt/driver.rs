//! Starting an event loop: the ring with the best flags that the kernel takes, epoll otherwise.

use std::fmt;
use std::future::Future;
use std::io;

use sluice_rules::snapshot::Driver;

/// Entries of the submission queue. More than any tick submits on the machines this was measured on; when it
/// is full, monoio submits early.
const RING_ENTRIES: u32 = 4096;

/// What drives the sockets of a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// io_uring: completions are processed when the loop asks for them (Linux 6.1). 10 to 25 % less processor
    /// time than without.
    UringDeferred,
    /// io_uring: completions do not interrupt the loop (Linux 5.19).
    UringCooperative,
    /// io_uring without flags.
    Uring,
    /// epoll.
    Epoll,
}

impl fmt::Display for Mode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Mode::UringDeferred => "io_uring (single-issuer, defer-taskrun)",
            Mode::UringCooperative => "io_uring (coop-taskrun)",
            Mode::Uring => "io_uring",
            Mode::Epoll => "epoll",
        })
    }
}

/// No event loop could be started.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// io_uring was demanded and the kernel refuses it.
    #[error(
        "the kernel refuses io_uring ({0}); set runtime.driver = \"auto\" to fall back to epoll, or allow it \
             (kernel.io_uring_disabled, the container's seccomp profile)"
    )]
    NoUring(io::Error),
    /// Not even epoll works.
    #[error("cannot start an event loop: {0}")]
    NoEpoll(io::Error),
}

impl Mode {
    fn builder(self) -> io_uring::Builder {
        let mut builder = io_uring::IoUring::builder();
        match self {
            Mode::UringDeferred => {
                builder.setup_single_issuer().setup_defer_taskrun();
            }
            Mode::UringCooperative => {
                builder.setup_coop_taskrun();
            }
            Mode::Uring | Mode::Epoll => {}
        }
        builder
    }

    /// Finds the best mode that works here. The ring is really set up, since kernels, containers and limits
    /// refuse it in many ways.
    pub(crate) fn detect(driver: Driver) -> Result<Mode, DriverError> {
        if driver == Driver::Epoll {
            return Ok(Mode::Epoll);
        }
        let mut refused = None;
        for mode in [Mode::UringDeferred, Mode::UringCooperative, Mode::Uring] {
            match mode.builder().build(RING_ENTRIES).and_then(|ring| probe(&ring)) {
                Ok(()) => return Ok(mode),
                Err(error) => refused = Some(error),
            }
        }
        match (driver, refused) {
            (Driver::IoUring, Some(error)) => Err(DriverError::NoUring(error)),
            _ => Ok(Mode::Epoll),
        }
    }
}

/// Whether the ring has the operations that are used.
fn probe(ring: &io_uring::IoUring) -> io::Result<()> {
    use io_uring::opcode;
    let mut probe = io_uring::Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    let needed = [
        opcode::Accept::CODE,
        opcode::Connect::CODE,
        opcode::Recv::CODE,
        opcode::Send::CODE,
        opcode::PollAdd::CODE,
        opcode::AsyncCancel::CODE,
        opcode::Close::CODE,
    ];
    match needed.iter().find(|code| !probe.is_supported(**code)) {
        None => Ok(()),
        Some(code) => Err(io::Error::other(format!("operation {code} is missing"))),
    }
}

/// Runs `main` on an event loop on this thread, for ever: a runtime that is dropped with operations under way
/// leaks them (monoio), so the process ends by exiting.
pub(crate) fn run<F: Future<Output = ()>>(mode: Mode, main: F) -> Result<(), DriverError> {
    match mode {
        Mode::Epoll => monoio::RuntimeBuilder::<monoio::LegacyDriver>::new()
            .enable_timer()
            .build()
            .map_err(DriverError::NoEpoll)?
            .block_on(main),
        uring => monoio::RuntimeBuilder::<monoio::IoUringDriver>::new()
            .with_entries(RING_ENTRIES)
            .uring_builder(uring.builder())
            .enable_timer()
            .build()
            .map_err(DriverError::NoUring)?
            .block_on(main),
    }
    Ok(())
}

/// Asks the kernel for pages of the usual size only. With huge ones each arena that the allocator has touched
/// counts two MiB, which is most of the memory of a gateway with a few thousand connections.
pub(crate) fn avoid_huge_pages() {
    // SAFETY: this option takes plain numbers and touches no memory of ours. Where it is refused, pages are huge.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
}

/// Processor time that this thread has used, in nanoseconds.
pub(crate) fn thread_nanos() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a whole `timespec`. Should the call fail, it stays zero.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Lets this thread work when the cores leave something over, mostly: it shares their processors.
pub(crate) fn stand_back() {
    /// A tenth of the share of a core that never rests, so that the work still ends.
    const NICE: libc::c_int = 10;
    // SAFETY: the call takes plain numbers and touches no memory of ours; 0 means this thread. Where it is refused,
    // the thread works as others do.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
}

/// Pins this thread to one of the processors that the process may run on: the `index`th of them, counted round.
pub(crate) fn pin_to(index: usize) -> io::Result<()> {
    // SAFETY: `cpu_set_t` is a plain bit set for which all zeroes is the empty set.
    let mut allowed: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a whole `cpu_set_t`, whose size is given; 0 means this thread.
    if unsafe { libc::sched_getaffinity(0, size_of_val(&allowed), &mut allowed) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `CPU_ISSET` reads a bit within the set for any index below its size.
    let cpus: Vec<usize> =
        (0..libc::CPU_SETSIZE as usize).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &allowed) }).collect();
    let cpu = cpus[index % cpus.len()];
    // SAFETY: as above.
    let mut chosen: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `cpu` came from a set of the same size.
    unsafe { libc::CPU_SET(cpu, &mut chosen) };
    // SAFETY: the pointer is to a whole `cpu_set_t`, whose size is given; 0 means this thread.
    if unsafe { libc::sched_setaffinity(0, size_of_val(&chosen), &chosen) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
