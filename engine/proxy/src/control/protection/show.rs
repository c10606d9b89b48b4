//! What is known of clients, for whoever asks: in JSON, and in Prometheus' text form.

use std::fmt::Write;
use std::time::{Duration, SystemTime};

use ipnet::IpNet;
use serde_json::{Value, json};
use sluice_rules::protection::{Ladder, Measure, Mode};
use sluice_rules::traffic::Top;
use sluice_rules::traffic::baseline::Signal;

use super::{Event, EventKind};
use crate::control::{Control, lock};

/// Clients that are shown.
const SHOWN_CLIENTS: usize = 20;

impl Control {
    /// The bans of operators and those of the ladder, in JSON.
    pub(in crate::control) fn bans(&self) -> Value {
        let now = self.shared.started.elapsed();
        let protector = lock(&self.protector);
        let is_enforced = self.mode() == Some(Mode::Enforce);
        let by_operators = protector.bans.iter().map(|ban| {
            json!({
                "network": ban.network.to_string(),
                "by": "operator",
                "reason": ban.reason,
                "since": seconds(ban.since),
                "left-seconds": ban.until.map(|until| until.saturating_sub(now).as_secs_f64().ceil()),
            })
        });
        let by_ladder = protector.ladder.held(now).filter(|(_, stand)| is_enforced && stand.measure == Measure::Ban);
        let by_ladder = by_ladder.map(|(subject, stand)| {
            json!({
                "network": subject.network().to_string(),
                "by": "ladder",
                "reason": stand.cause.word(),
                "since": seconds(wall(stand.since, now)),
                "left-seconds": stand.until.saturating_sub(now).as_secs_f64().ceil(),
            })
        });
        json!({ "bans": by_operators.chain(by_ladder).collect::<Vec<_>>() })
    }

    /// Who loads the gateway now, what is done about whom, and what has happened, in JSON.
    pub(in crate::control) fn protection(&self) -> Value {
        let now = self.shared.started.elapsed();
        let mode = self.mode();
        let bans = self.bans();
        let protector = lock(&self.protector);
        let totals = &protector.totals;
        let clients = totals.clients.iter().take(SHOWN_CLIENTS).map(|client| {
            json!({
                "client": client.subject.to_string(),
                "requests": client.requests,
                "requests-at-least": client.seen.requests,
                "requests-10s": client.seen.requests_lately,
                "errors-10s": client.seen.errors_lately,
                "refused-logins": client.tally.logins,
                "slow": client.tally.slow,
            })
        });
        let signals = Signal::ALL.into_iter().zip(&protector.baselines).map(|(signal, baseline)| {
            let (value, usual) = (signal.of(totals), baseline.usual());
            let of = json!({ "now": value, "usual": usual, "bound": baseline.bound(signal) });
            (signal.word().to_owned(), of)
        });
        let held = protector.ladder.held(now).map(|(subject, stand)| {
            json!({
                "client": subject.to_string(),
                "measure": stand.measure.word(),
                "step": stand.number,
                "cause": stand.cause.word(),
                "since": seconds(wall(stand.since, now)),
                "left-seconds": stand.until.saturating_sub(now).as_secs_f64().ceil(),
                "enforced": mode == Some(Mode::Enforce),
            })
        });
        json!({
            "mode": mode.map_or("off", Mode::word),
            "last-second": {
                "requests": totals.requests,
                "clients": totals.distinct_clients.round(),
                "paths": totals.distinct_paths.round(),
                "errors": totals.tally.errors,
                "top-clients": clients.collect::<Vec<_>>(),
                "top-networks": shown(&totals.networks, IpNet::to_string),
                "top-paths": shown(&totals.paths, |path| path.shown()),
                "top-user-agents": shown(&totals.agents, |agent| agent.shown()),
            },
            "signals": signals.collect::<serde_json::Map<_, _>>(),
            "measures": held.collect::<Vec<_>>(),
            "bans": bans["bans"],
            "events": protector.events.iter().rev().map(Event::to_json).collect::<Vec<_>>(),
        })
    }

    /// What was done, in Prometheus' text form.
    pub(in crate::control) fn protection_metrics(&self) -> String {
        let now = self.shared.started.elapsed();
        let protector = lock(&self.protector);
        let mut out = String::new();
        let mut family = |name: &str, kind: &str, help: &str, lines: Vec<(String, u64)>| {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (labels, value) in lines {
                let _ = writeln!(out, "{name}{labels} {value}");
            }
        };
        let counts = &protector.counts;
        let steps = [Mode::Observe, Mode::Enforce].into_iter().flat_map(|mode| {
            Measure::ALL.into_iter().map(move |measure| {
                let labels = format!("{{measure=\"{}\",mode=\"{}\"}}", measure.word(), mode.word());
                (labels, counts.steps[mode as usize][measure.strength()])
            })
        });
        let help = "Steps of the ladder that clients took, or would have taken.";
        family("sluice_protection_steps_total", "counter", help, steps.collect());
        let held = Measure::ALL.into_iter();
        let held = held.map(|one| (format!("{{measure=\"{}\"}}", one.word()), count_held(&protector.ladder, one, now)));
        let help = "Clients that a measure holds for, or would hold for.";
        family("sluice_protection_clients", "gauge", help, held.collect());
        let unusual = Signal::ALL.into_iter().zip(counts.unusual);
        let unusual = unusual.map(|(signal, count)| (format!("{{signal=\"{}\"}}", signal.word()), count));
        let help = "How often the traffic began to be unlike what was learned.";
        family("sluice_protection_unusual_total", "counter", help, unusual.collect());
        let help = "Networks that operators have banned.";
        family("sluice_protection_bans", "gauge", help, vec![(String::new(), protector.bans.len() as u64)]);
        out
    }
}

fn count_held(ladder: &Ladder, measure: Measure, now: Duration) -> u64 {
    ladder.held(now).filter(|(_, stand)| stand.measure == measure).count() as u64
}

impl Event {
    fn to_json(&self) -> Value {
        let mut event = match &self.kind {
            EventKind::Step(step) => json!({
                "event": "step",
                "client": step.subject.to_string(),
                "step": step.number,
                "measure": step.rung.measure.word(),
                "seconds": step.rung.time.as_secs(),
                "mode": step.mode.word(),
                "cause": step.cause.word(),
                "rule": format!("trip.{}", step.cause.word()),
                "requests": step.seen.requests,
                "requests-10s": step.seen.requests_lately,
                "errors-10s": step.seen.errors_lately,
            }),
            EventKind::Unusual(unusual) => json!({
                "event": "unusual",
                "signal": unusual.signal.word(),
                "value": unusual.value,
                "usual": unusual.usual,
                "bound": unusual.bound,
            }),
            EventKind::Banned(network, reason) => {
                json!({ "event": "banned", "network": network.to_string(), "reason": reason })
            }
            EventKind::Lifted(network) => json!({ "event": "lifted", "network": network.to_string() }),
        };
        event["at"] = json!(seconds(self.at));
        event
    }
}

/// The wall's time of a moment since the gateway began to serve.
fn wall(moment: Duration, now: Duration) -> SystemTime {
    SystemTime::now().checked_sub(now.saturating_sub(moment)).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Seconds since 1970.
fn seconds(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

fn shown<K>(top: &Top<K>, show: impl Fn(&K) -> String) -> Vec<Value> {
    top.keys.iter().map(|(key, requests)| json!({ "is": show(key), "requests": requests })).collect()
}
