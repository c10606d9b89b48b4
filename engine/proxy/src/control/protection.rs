//! Who does harm, and what is done about it: adds up what the cores have seen each second, judges clients, publishes
//! verdicts, and keeps the bans of operators and the last events.

mod show;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant, SystemTime};

use ipnet::IpNet;
use sluice_rules::protection::{Cause, Ladder, Measure, Mode, Protection, Step, Subject};
use sluice_rules::traffic::baseline::{Baseline, Signal, Unusual};
use sluice_rules::traffic::{Totals, Window};
use tokio::time::MissedTickBehavior;

use super::{Control, lock};
use crate::shield::traffic::Seen;
use crate::shield::verdicts::{Held, Verdicts};

/// How often it is looked for what cores have seen, which they hand over each second.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How long a second may be that is judged, if some core does not hand over what it has seen.
const SECOND_MAX: Duration = Duration::from_millis(1500);

/// Events that are kept to be shown.
const EVENTS_MAX: usize = 256;

/// Networks that operators may have banned at a time.
const BANS_MAX: usize = 10_000;

/// Steps of one second that are told of in the log, each by a message.
const TOLD_MAX: usize = 20;

/// Bytes of a reason that an operator gives.
const REASON_BYTES_MAX: usize = 256;

/// What the control thread knows of clients.
#[derive(Default)]
pub(super) struct Protector {
    ladder: Ladder,
    totals: Totals,
    baselines: [Baseline; Signal::ALL.len()],
    bans: Vec<Ban>,
    events: VecDeque<Event>,
    counts: Counts,
    /// When clients that are slowed down may ask again, kept from table to table.
    dues: HashMap<Subject, Arc<AtomicU64>>,
    /// Tables that were replaced and that a core may still hold.
    replaced: Vec<Arc<Verdicts>>,
    /// Which configuration the published table is of.
    configuration: u64,
    /// Whether the published table is not what holds.
    is_stale: bool,
    /// When the first thing in the published table ends.
    next_end: Option<Duration>,
}

/// What was done, by what it was.
#[derive(Default)]
struct Counts {
    steps: [[u64; Measure::ALL.len()]; 2],
    unusual: [u64; Signal::ALL.len()],
}

/// A network that an operator has banned.
#[derive(Clone, Debug)]
pub(super) struct Ban {
    pub(super) network: IpNet,
    /// Since the gateway began to serve. `None`: until it is removed.
    until: Option<Duration>,
    reason: String,
    since: SystemTime,
}

/// Something that was seen or done.
#[derive(Clone, Debug)]
struct Event {
    at: SystemTime,
    kind: EventKind,
}

#[derive(Clone, Debug)]
enum EventKind {
    /// A client takes a step of the ladder, or would.
    Step(Step),
    /// The traffic is not as usual.
    Unusual(Unusual),
    /// An operator has banned a network.
    Banned(IpNet, String),
    /// An operator has lifted a ban, or let a client off.
    Lifted(IpNet),
}

/// Why a ban cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BanError {
    #[error("there are {BANS_MAX} bans already; a list of networks belongs into a deny-file")]
    TooMany,
    #[error("the reason is longer than {REASON_BYTES_MAX} bytes")]
    Reason,
}

/// Looks who does harm, for ever.
pub(super) async fn watch(control: Arc<Control>) {
    let mut turn = tokio::time::interval(LOOK_EVERY);
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut waiting: Vec<Option<Seen>> = control.metrics.iter().map(|_| None).collect();
    let mut since = Instant::now();
    loop {
        turn.tick().await;
        let cores = &control.shared.shield.traffic;
        for (waiting, exchanges) in waiting.iter_mut().zip(cores) {
            *waiting = waiting.take().or_else(|| exchanges.seen());
        }
        let now = control.shared.started.elapsed();
        let is_whole = waiting.iter().all(Option::is_some);
        if is_whole || (waiting.iter().any(Option::is_some) && since.elapsed() > SECOND_MAX) {
            since = Instant::now();
            let windows: Vec<(&Window, u32)> =
                waiting.iter().flatten().map(|seen| (&*seen.window, seen.ticks)).collect();
            control.judge(&windows, now);
            for (waiting, exchanges) in waiting.iter_mut().zip(cores) {
                if let Some(seen) = waiting.take() {
                    exchanges.give_back(seen.window);
                }
            }
        }
        control.renew_verdicts(now);
    }
}

impl Control {
    /// Judges clients by what the cores have seen in a second.
    fn judge(&self, windows: &[(&Window, u32)], now: Duration) {
        let snapshot = Arc::clone(&self.shared.published.current().snapshot);
        let Some(protection) = &snapshot.protection else { return };
        let mut protector = lock(&self.protector);
        let protector = &mut *protector;
        protector.totals.take(windows);
        let (totals, ladder) = (&protector.totals, &mut protector.ladder);
        // A proxy that does not say for whom it asks is no client.
        let is_proxy = |subject: Subject| snapshot.listeners.iter().any(|one| one.trusts(subject.address()));
        let judged = totals.clients.iter().filter(|client| !is_proxy(client.subject));
        let steps: Vec<Step> =
            judged.filter_map(|client| ladder.judge(protection, client.subject, client.seen, now)).collect();
        let unusual = Signal::ALL.into_iter().zip(&mut protector.baselines);
        let unusual: Vec<Unusual> =
            unusual.filter_map(|(signal, baseline)| baseline.take(signal, signal.of(totals))).collect();
        ladder.sweep(now);
        for unusual in unusual {
            protector.note_unusual(unusual);
        }
        protector.note_steps(&steps, protection);
    }

    /// Publishes what holds now, if something has changed.
    fn renew_verdicts(&self, now: Duration) {
        let current = self.shared.published.current();
        let protection = current.snapshot.protection.as_ref();
        let mut protector = lock(&self.protector);
        protector.replaced.retain(|verdicts| Arc::strong_count(verdicts) > 1);
        if protector.configuration != current.configuration {
            (protector.configuration, protector.is_stale) = (current.configuration, true);
        }
        if protector.next_end.is_some_and(|end| end <= now) {
            protector.is_stale = true;
        }
        if !std::mem::take(&mut protector.is_stale) {
            return;
        }
        if protection.is_none() {
            protector.ladder.clear();
        }
        let verdicts = protector.verdicts(protection, now);
        let replaced = self.shared.shield.verdicts.publish(verdicts);
        protector.replaced.push(replaced);
    }

    /// Bans a network, for a while or until the ban is lifted. What is banned already is banned anew.
    pub(super) fn ban(&self, network: IpNet, time: Option<Duration>, reason: &str) -> Result<(), BanError> {
        if reason.len() > REASON_BYTES_MAX {
            return Err(BanError::Reason);
        }
        let now = self.shared.started.elapsed();
        let network = network.trunc();
        {
            let mut protector = lock(&self.protector);
            protector.bans.retain(|ban| ban.network != network);
            if protector.bans.len() >= BANS_MAX {
                return Err(BanError::TooMany);
            }
            let until = time.map(|time| now.saturating_add(time));
            let reason = reason.to_owned();
            protector.bans.push(Ban { network, until, reason: reason.clone(), since: SystemTime::now() });
            protector.is_stale = true;
            let time = time.map(tracing::field::debug);
            tracing::warn!(event = "banned", %network, time, reason, "an operator has banned a network");
            protector.note(EventKind::Banned(network, reason));
        }
        self.renew_verdicts(now);
        Ok(())
    }

    /// Lifts the ban of a network, and lets the client off whose network it is. Whether there was anything to lift.
    pub(super) fn lift(&self, network: IpNet) -> bool {
        let network = network.trunc();
        let lifted = {
            let mut protector = lock(&self.protector);
            let before = protector.bans.len();
            protector.bans.retain(|ban| ban.network != network);
            let subject = Subject::of(network.addr());
            let is_subject = network.prefix_len() >= subject.network().prefix_len();
            let lifted = (is_subject && protector.ladder.forget(subject)) || protector.bans.len() < before;
            if lifted {
                protector.is_stale = true;
                tracing::warn!(event = "lifted", %network, "an operator has lifted a ban");
                protector.note(EventKind::Lifted(network));
            }
            lifted
        };
        self.renew_verdicts(self.shared.started.elapsed());
        lifted
    }

    fn mode(&self) -> Option<Mode> {
        self.shared.published.current().snapshot.protection.as_ref().map(|protection| protection.mode)
    }
}

impl Protector {
    /// What holds at `now`, and when the first of it ends.
    fn verdicts(&mut self, protection: Option<&Protection>, now: Duration) -> Verdicts {
        self.bans.retain(|ban| ban.until.is_none_or(|until| until > now));
        let is_enforced = protection.is_some_and(|protection| protection.mode == Mode::Enforce);
        let held: Vec<_> = self.ladder.held(now).filter(|_| is_enforced).collect();
        let mut dues = std::mem::take(&mut self.dues);
        let clients = held.iter().map(|(subject, stand)| {
            let due = dues.remove(subject).unwrap_or_default();
            let until = u64::try_from(stand.until.as_nanos()).unwrap_or(u64::MAX);
            self.dues.insert(*subject, Arc::clone(&due));
            (*subject, Held { measure: stand.measure, until, due })
        });
        let clients = clients.collect();
        let ends = held.iter().map(|(_, stand)| stand.until);
        self.next_end = ends.chain(self.bans.iter().filter_map(|ban| ban.until)).min();
        let banned = self.bans.iter().map(|ban| ban.network).collect();
        Verdicts { clients, banned, throttle: protection.map_or(1, |protection| protection.throttle) }
    }

    fn note(&mut self, kind: EventKind) {
        if self.events.len() >= EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(Event { at: SystemTime::now(), kind });
    }

    fn note_unusual(&mut self, unusual: Unusual) {
        let Unusual { signal, value, usual, bound } = unusual;
        let position = Signal::ALL.iter().position(|one| *one == signal).unwrap_or_default();
        self.counts.unusual[position] += 1;
        let signal = signal.word();
        tracing::warn!(event = "unusual", signal, value, usual, bound, "the traffic is not as usual");
        self.note(EventKind::Unusual(unusual));
    }

    fn note_steps(&mut self, steps: &[Step], protection: &Protection) {
        for (number, step) in steps.iter().enumerate() {
            self.counts.steps[step.mode as usize][step.rung.measure.strength()] += 1;
            self.is_stale = true;
            if number < TOLD_MAX {
                tell(step, protection);
            }
            self.note(EventKind::Step(*step));
        }
        if let Some(more) = steps.len().checked_sub(TOLD_MAX).filter(|more| *more > 0) {
            tracing::warn!(event = "step", more, "more clients took a step in the same second");
        }
    }
}

/// Tells of a step: who, what was seen, which rule that breaks, and what is done.
fn tell(step: &Step, protection: &Protection) {
    let Step { subject: client, number, rung, mode, cause, seen } = step;
    let (measure, mode, rule) = (rung.measure.word(), mode.word(), rule(*cause, protection));
    tracing::warn!(
        event = "step",
        %client,
        measure,
        mode,
        step = number,
        cause = cause.word(),
        rule,
        time = ?rung.time,
        requests = seen.requests,
        requests_10s = seen.requests_lately,
        errors_10s = seen.errors_lately,
        "a client takes a step of the ladder"
    );
}

/// The rule that a client has broken, as the configuration has it.
fn rule(cause: Cause, protection: &Protection) -> String {
    let trip = protection.trip;
    match cause {
        Cause::Requests => format!("trip.requests = \"{}/s\"", trip.requests),
        Cause::Errors => {
            format!("trip.errors = \"{}%\" of at least {}", trip.errors_percent, trip.requests_min)
        }
    }
}
