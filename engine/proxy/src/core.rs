//! A core: one event loop and everything that is its own. Passed as `&Core`; no globals, no thread-locals.

use std::cell::{Cell, RefCell};
use std::ops::{Deref, DerefMut};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::SystemTime;

use sluice_rules::rewrite::Rewritten;
use sluice_rules::snapshot::{Snapshot, UpstreamId};
use sluice_wire::authority::Authority;
use sluice_wire::h1::encode::Edits;
use sluice_wire::head::{RequestHead, ResponseHead};
use sluice_wire::target::Target;

use crate::deadline::Deadlines;
use crate::observe::metrics::CoreMetrics;
use crate::publish::{Publication, Published};
use crate::rt::BufferPool;
use crate::upstream::pool::{Endpoints, Pools};
use crate::waiting::Waiting;

/// What all cores and the control thread share.
pub(crate) struct Shared {
    pub(crate) published: Published,
    /// Set once: no new connections, and the last response on each old one says so.
    pub(crate) draining: AtomicBool,
    /// Open connections of each listener.
    pub(crate) connections: Vec<AtomicUsize>,
}

/// One event loop and what is its own.
pub(crate) struct Core {
    pub(crate) shared: Arc<Shared>,
    pub(crate) metrics: Arc<CoreMetrics>,
    pub(crate) buffers: Rc<BufferPool>,
    pub(crate) deadlines: Rc<Deadlines>,
    pub(crate) waiting: Waiting,
    pub(crate) pools: Pools,
    local: RefCell<Rc<Local>>,
    #[expect(clippy::vec_box, reason = "a loan moves a pointer, not the tables")]
    scratches: RefCell<Vec<Box<Scratch>>>,
    random: Cell<u64>,
    date: RefCell<(u64, String)>,
}

/// A core's own view of what is published, so that a request touches no shared count.
pub(crate) struct Local {
    generation: u64,
    snapshot: Arc<Snapshot>,
    upstreams: Vec<Endpoints>,
}

impl Local {
    pub(crate) fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    pub(crate) fn endpoints(&self, upstream: UpstreamId) -> &Endpoints {
        &self.upstreams[upstream.0 as usize]
    }
}

impl Core {
    pub(crate) fn new(index: usize, memory_bytes: usize, shared: Arc<Shared>, metrics: Arc<CoreMetrics>) -> Rc<Self> {
        let pools = Pools::default();
        let local = Core::local_of(&shared.published.current(), &pools);
        // xorshift needs a seed other than 0; cores must not choose alike.
        let seed = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_nanos() as u64);
        Rc::new(Core {
            shared,
            metrics,
            buffers: BufferPool::new(memory_bytes),
            deadlines: Deadlines::new(),
            waiting: Waiting::default(),
            pools,
            local: RefCell::new(Rc::new(local)),
            scratches: RefCell::default(),
            random: Cell::new((seed ^ (index as u64) << 32) | 1),
            date: RefCell::default(),
        })
    }

    fn local_of(publication: &Publication, pools: &Pools) -> Local {
        let upstreams = publication.addresses.iter().map(|addresses| pools.endpoints(addresses)).collect();
        Local { generation: publication.generation, snapshot: Arc::clone(&publication.snapshot), upstreams }
    }

    /// The newest configuration. A request asks once and keeps what it got.
    pub(crate) fn local(&self) -> Rc<Local> {
        if self.local.borrow().generation != self.shared.published.generation() {
            let local = Core::local_of(&self.shared.published.current(), &self.pools);
            self.local.replace(Rc::new(local));
        }
        Rc::clone(&self.local.borrow())
    }

    /// Whether the process is about to end.
    pub(crate) fn draining(&self) -> bool {
        self.shared.draining.load(Ordering::Relaxed)
    }

    /// A random number, not fit for secrets (xorshift64*, Vigna 2016).
    pub(crate) fn random(&self) -> u64 {
        let mut state = self.random.get();
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        self.random.set(state);
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// The date as a field value (RFC 9110 §5.6.7), made once a second.
    pub(crate) fn date<T>(&self, with: impl FnOnce(&str) -> T) -> T {
        with(&self.date.borrow().1)
    }

    /// Reads the wall clock for [`Core::date`].
    pub(crate) fn tick_date(&self) {
        let now = SystemTime::now();
        let second = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let mut date = self.date.borrow_mut();
        if date.0 != second || date.1.is_empty() {
            *date = (second, httpdate::fmt_http_date(now));
        }
    }

    /// Tables for one request at a time.
    pub(crate) fn scratch(self: &Rc<Self>) -> ScratchGuard {
        let scratch = self.scratches.borrow_mut().pop().unwrap_or_default();
        ScratchGuard { scratch: Some(scratch), core: Rc::clone(self) }
    }
}

/// What the handling of a request needs besides its buffers; kept from request to request, so that nothing is
/// allocated once a core is warm.
#[derive(Default)]
pub(crate) struct Scratch {
    pub(crate) request: RequestHead,
    pub(crate) response: ResponseHead,
    pub(crate) target: Target,
    pub(crate) authority: Authority,
    /// The target and host that are sent, where they are rewritten.
    pub(crate) rewritten: Rewritten,
    pub(crate) edits: Edits,
    /// Where heads are written before they are put in front of their content.
    pub(crate) head: Vec<u8>,
}

/// Tables kept for the next request; more are freed.
const KEPT_SCRATCHES: usize = 512;

/// A [`Scratch`] on loan.
pub(crate) struct ScratchGuard {
    scratch: Option<Box<Scratch>>,
    core: Rc<Core>,
}

impl Deref for ScratchGuard {
    type Target = Scratch;

    fn deref(&self) -> &Scratch {
        self.scratch.as_ref().expect("it is taken only by drop")
    }
}

impl DerefMut for ScratchGuard {
    fn deref_mut(&mut self) -> &mut Scratch {
        self.scratch.as_mut().expect("it is taken only by drop")
    }
}

impl Drop for ScratchGuard {
    fn drop(&mut self) {
        let mut kept = self.core.scratches.borrow_mut();
        if let Some(scratch) = self.scratch.take().filter(|_| kept.len() < KEPT_SCRATCHES) {
            kept.push(scratch);
        }
    }
}
