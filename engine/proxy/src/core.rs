//! A core: one event loop and everything that is its own. Passed as `&Core`; no globals, no thread-locals.

use std::cell::{Cell, Ref, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use sluice_rules::access::Lists;
use sluice_rules::cache::{Moment, UnixSeconds};
use sluice_rules::overload::{Load, Shedding};
use sluice_rules::rewrite::Rewritten;
use sluice_rules::snapshot::{Listener, Snapshot, UpstreamId};
use sluice_rules::traffic;
use sluice_wire::authority::Authority;
use sluice_wire::h1::encode::Edits;
use sluice_wire::h2::meter::Flood;
use sluice_wire::head::{RequestHead, ResponseHead};
use sluice_wire::target::Target;

use crate::Message;
use crate::cache::{self, Fill, Index, Store};
use crate::deadline::{Deadlines, TICK, ticks};
use crate::limits::{Accounts, CoreLimits};
use crate::listen::Door;
use crate::observe::access::{Access, Ring};
use crate::observe::clock::Clock;
use crate::observe::diagnostics::Diagnostics;
use crate::observe::metrics::CoreMetrics;
use crate::observe::record::Nanos;
use crate::observe::series::SeriesTable;
use crate::publish::{Publication, Published};
use crate::rt::{BufferPool, Mailbox};
use crate::shield::Shield;
use crate::shield::traffic::Seen;
use crate::shield::verdicts::Verdicts;
use crate::tls::server::Server;
use crate::upstream::pool::{Endpoints, Pools};
use crate::upstream::queue::{Line, Lines};
use crate::waiting::Waiting;
use crate::wheel::Tick;

/// How often floods are told of.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// What all cores and the control thread share.
pub(crate) struct Shared {
    pub(crate) published: Published,
    pub(crate) cache: Store,
    pub(crate) access: Access,
    pub(crate) diagnostics: Diagnostics,
    /// What keeps clients away that do harm.
    pub(crate) shield: Shield,
    /// Set once: the process is about to end.
    pub(crate) draining: AtomicBool,
    /// When the process began to serve.
    pub(crate) started: Instant,
    /// The mailbox of each core.
    pub(crate) mailboxes: Arc<[Mailbox<Message>]>,
    /// The accounts of limits, once a configuration has any.
    pub(crate) accounts: OnceLock<Accounts>,
}

impl Shared {
    /// Sends a message to a core. Whether it was taken: a core that is far behind takes none.
    pub(crate) fn send(&self, core: usize, message: Message) -> bool {
        self.mailboxes.get(core).is_some_and(|mailbox| mailbox.send(message).is_ok())
    }
}

/// One event loop and what is its own.
pub(crate) struct Core {
    pub(crate) shared: Arc<Shared>,
    pub(crate) metrics: Arc<CoreMetrics>,
    pub(crate) buffers: Rc<BufferPool>,
    pub(crate) deadlines: Rc<Deadlines>,
    pub(crate) waiting: Waiting,
    pub(crate) pools: Pools,
    pub(crate) lines: Lines,
    /// What is refused since the core has too much to do.
    pub(crate) shedding: Cell<Shedding>,
    /// What it serves from the cache.
    pub(crate) cache: Index,
    pub(crate) clock: Clock,
    /// When its clock began, by the clock that all cores share: nanoseconds since the process began to serve.
    clock_began: Nanos,
    pub(crate) access: Ring,
    pub(crate) limits: CoreLimits,
    /// Which of the cores it is.
    pub(crate) index: usize,
    /// Bytes of message buffers that may be in use.
    memory_bytes: usize,
    local: RefCell<Rc<Local>>,
    retired: RefCell<HashMap<u32, Retired>>,
    #[expect(clippy::vec_box, reason = "a loan moves a pointer, not the tables")]
    scratches: RefCell<Vec<Box<Scratch>>>,
    random: Cell<u64>,
    verdicts: RefCell<(u64, Arc<Verdicts>)>,
    traffic: RefCell<Traffic>,
    /// Requests that wait in the tar pit.
    pub(crate) tarpitted: Cell<usize>,
    floods_quiet_until: Cell<Tick>,
    date: RefCell<(u64, String)>,
}

/// What a core sees of its traffic.
#[derive(Default)]
struct Traffic {
    /// `None`: nobody wants to know.
    window: Option<Box<traffic::Window>>,
    since: Tick,
}

/// A core's own view of what is published, so that a request touches no shared count.
pub(crate) struct Local {
    generation: u64,
    snapshot: Arc<Snapshot>,
    upstreams: Vec<Endpoints>,
    lines: Vec<Option<Rc<Line>>>,
    /// Where in the configuration the listener of a door is, by the door's number.
    listeners: Vec<Option<u32>>,
    /// Held, not read: the doors keep their numbers as long as anything here knows them by number.
    publication: Arc<Publication>,
}

/// A door that the newest configuration does not name, and the last that does.
struct Retired {
    door: Arc<Door>,
    local: Rc<Local>,
}

impl Local {
    pub(crate) fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// What is expected of clients that came through a door. `None`: it is not named any more.
    pub(crate) fn listener(&self, door: u32) -> Option<&Listener> {
        let index = self.listeners.get(door as usize).copied().flatten()?;
        self.snapshot.listeners.get(index as usize)
    }

    /// How connections that came through a door are protected, if they are.
    pub(crate) fn tls(&self, door: u32) -> Option<&Arc<Server>> {
        let index = self.listeners.get(door as usize).copied().flatten()?;
        self.publication.tls.get(index as usize)?.as_ref()
    }

    /// What is in the files of access lists now.
    pub(crate) fn lists(&self) -> &[Lists] {
        &self.publication.lists
    }

    /// Where the figures of its routes and upstreams are.
    pub(crate) fn series(&self) -> &SeriesTable {
        &self.publication.series
    }

    pub(crate) fn endpoints(&self, upstream: UpstreamId) -> &Endpoints {
        &self.upstreams[upstream.0 as usize]
    }

    /// Where requests wait for an upstream. `None`: it has as many as come.
    pub(crate) fn line(&self, upstream: UpstreamId) -> Option<&Rc<Line>> {
        self.lines[upstream.0 as usize].as_ref()
    }
}

impl Core {
    pub(crate) fn new(
        index: usize,
        cores: usize,
        memory_bytes: usize,
        shared: Arc<Shared>,
        metrics: Arc<CoreMetrics>,
        access: Ring,
    ) -> Rc<Self> {
        let (pools, lines) = (Pools::default(), Lines::default());
        let local = Core::local_of(shared.published.current(), &pools, &lines);
        metrics.generation.set(local.generation);
        // xorshift needs a seed other than 0; cores must not choose alike.
        let clock = Clock::default();
        let clock_began = clock.began_after(shared.started);
        let seed = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_nanos() as u64);
        let limits = CoreLimits::new(cores);
        Rc::new(Core {
            shared,
            metrics,
            buffers: BufferPool::new(memory_bytes),
            deadlines: Deadlines::new(),
            waiting: Waiting::default(),
            pools,
            lines,
            shedding: Cell::default(),
            cache: Index::new(index),
            clock,
            clock_began,
            access,
            limits,
            index,
            memory_bytes,
            local: RefCell::new(Rc::new(local)),
            retired: RefCell::default(),
            scratches: RefCell::default(),
            floods_quiet_until: Cell::new(0),
            verdicts: RefCell::default(),
            traffic: RefCell::default(),
            tarpitted: Cell::new(0),
            random: Cell::new((seed ^ (index as u64) << 32) | 1),
            date: RefCell::default(),
        })
    }

    fn local_of(publication: Arc<Publication>, pools: &Pools, lines: &Lines) -> Local {
        let upstreams = publication.addresses.iter().zip(&publication.clients);
        let upstreams = upstreams.map(|(addresses, client)| pools.endpoints(addresses, client.as_ref())).collect();
        let doors = &publication.doors;
        let mut listeners = vec![None; doors.iter().map(|door| door.id as usize + 1).max().unwrap_or(0)];
        for (index, door) in doors.iter().enumerate() {
            listeners[door.id as usize] = Some(index as u32);
        }
        let (generation, snapshot) = (publication.generation, Arc::clone(&publication.snapshot));
        let lines = lines.of(&publication);
        Local { generation, snapshot, upstreams, lines, listeners, publication }
    }

    /// The newest configuration. A request asks once and keeps what it got.
    pub(crate) fn local(&self) -> Rc<Local> {
        if self.local.borrow().generation != self.shared.published.generation() {
            self.renew();
        }
        Rc::clone(&self.local.borrow())
    }

    /// The newest configuration that names a door: connections may outlive the listener that they came through.
    pub(crate) fn local_of_door(&self, door: u32) -> Rc<Local> {
        let local = self.local();
        if local.listener(door).is_some() {
            return local;
        }
        let retired = self.retired.borrow();
        Rc::clone(&retired.get(&door).expect("it is kept as long as the door is in use").local)
    }

    #[cold]
    fn renew(&self) {
        let local = Core::local_of(self.shared.published.current(), &self.pools, &self.lines);
        let before = self.local.replace(Rc::new(local));
        let local = self.local.borrow();
        let mut retired = self.retired.borrow_mut();
        for door in before.publication.doors.iter().filter(|door| local.listener(door.id).is_none()) {
            retired.insert(door.id, Retired { door: Arc::clone(door), local: Rc::clone(&before) });
        }
        self.metrics.generation.set(local.generation);
    }

    /// A client sends frames that move nothing forward, and its connection ends for it.
    pub(crate) fn flooded(&self, client: SocketAddr, flood: Flood) {
        let position = Flood::ALL.iter().position(|known| *known == flood).unwrap_or_default();
        self.metrics.http2_floods[position].add(1);
        let now = self.deadlines.now();
        // Whoever floods does it again and again.
        if now >= self.floods_quiet_until.get() {
            self.floods_quiet_until.set(now.saturating_add(ticks(WARN_EVERY)));
            tracing::warn!(%client, kind = flood.label(), "a connection of HTTP/2 is ended for a flood: {flood}");
        }
    }

    /// Looks at the load: what the core has worked since the last look, `beat` ago, and the buffers in use.
    pub(crate) fn tick_load(&self, worked_nanos: u64, beat: Duration) {
        let local = self.local.borrow();
        let percent = |part: u64, whole: u64| (part.saturating_mul(100) / whole.max(1)).min(100) as u32;
        let load = Load {
            memory_percent: percent(self.buffers.in_use_bytes() as u64, self.memory_bytes as u64),
            busy_percent: percent(worked_nanos, beat.max(TICK / 2).as_nanos() as u64),
        };
        let before = self.shedding.get();
        let after = before.after(load, local.snapshot.overload);
        self.shedding.set(after);
        self.metrics.shedding.set(after.level().into());
        if (before.level() == 0) != (after.level() == 0) {
            let Load { memory_percent, busy_percent } = load;
            if after.level() == 0 {
                tracing::info!(core = self.index, "a core takes all requests again");
            } else {
                tracing::warn!(
                    core = self.index,
                    memory_percent,
                    busy_percent,
                    "a core refuses the least urgent requests"
                );
            }
        }
    }

    /// What was decided of clients.
    pub(crate) fn verdicts(&self) -> Ref<'_, Arc<Verdicts>> {
        let published = &self.shared.shield.verdicts;
        let generation = published.generation();
        if self.verdicts.borrow().0 != generation {
            self.verdicts.replace((generation, published.current()));
        }
        Ref::map(self.verdicts.borrow(), |(_, verdicts)| verdicts)
    }

    /// Nanoseconds since the gateway began to serve, alike on all cores. Reads the clock: not for each request.
    pub(crate) fn nanos(&self) -> u64 {
        u64::try_from(self.shared.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Takes in a request that has ended, for whoever looks who does harm.
    pub(crate) fn seen(&self, request: &traffic::Request<'_>) {
        let mut traffic = self.traffic.borrow_mut();
        if traffic.window.is_none() {
            traffic.window = self.shared.shield.traffic[self.index].empty();
            traffic.since = self.deadlines.now();
        }
        if let Some(window) = &mut traffic.window {
            window.record(request);
        }
    }

    /// Hands what it has seen to the control thread, unless that is behind.
    pub(crate) fn hand_over_traffic(&self) {
        let exchanges = &self.shared.shield.traffic[self.index];
        let mut traffic = self.traffic.borrow_mut();
        let now = self.deadlines.now();
        if traffic.window.is_none() {
            return;
        }
        let Some(next) = exchanges.empty() else { return };
        let ticks = now.saturating_sub(traffic.since).max(1);
        traffic.since = now;
        if let Some(window) = traffic.window.replace(next) {
            exchanges.hand_over(Seen { window, ticks });
        }
    }

    /// A reading of its clock as nanoseconds since the gateway began to serve, alike on all cores.
    pub(crate) fn since_start(&self, at: Nanos) -> Nanos {
        self.clock_began.saturating_add(at)
    }

    /// The same as the cache counts.
    pub(crate) fn moment(&self, at: Nanos) -> Moment {
        Moment(self.since_start(at) / 1_000_000)
    }

    /// The wall's time in seconds since 1970.
    pub(crate) fn wall_seconds(&self) -> UnixSeconds {
        (self.clock.wall(self.clock.now()) / 1_000_000_000) as UnixSeconds
    }

    /// Wakes those who follow a fill on these cores, as bits.
    pub(crate) fn ring(&self, mut cores: u64, fill: &Arc<Fill>) {
        if cores & cache::bit(self.index) != 0 {
            self.cache.wake(fill);
            // Of cores beyond the 64th some share its bit.
            if self.shared.cache.cores() <= u64::BITS as usize {
                cores &= !cache::bit(self.index);
            }
        }
        self.shared.cache.ring(cores, fill);
    }

    /// Takes what the cache has left word of.
    pub(crate) fn take_word(&self) {
        let Some(word) = self.shared.cache.post.take(self.index) else { return };
        for hash in word.gone {
            self.cache.forget(hash);
        }
        for fill in &word.fills {
            self.cache.wake(fill);
        }
    }

    /// Forgets doors that are not used any more.
    pub(crate) fn sweep(&self) {
        self.retired.borrow_mut().retain(|_, retired| retired.door.is_in_use());
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
    /// What the request is found by in the cache.
    pub(crate) key: Vec<u8>,
    /// The same for the fields that select a response.
    pub(crate) secondary: Vec<u8>,
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
