//! Limits in words, as `sluice explain` says them.

use std::fmt;
use std::time::Duration;

use super::key::{Facts, Part};
use super::meter::{Meter, Take};
use super::word::{FRESH, Moment};
use super::{Applied, Limit, Mode};

impl fmt::Display for Part {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::ClientIp => formatter.write_str("client-ip"),
            Part::Header(name) => write!(formatter, "header:{name}"),
            Part::Cookie(name) => write!(formatter, "cookie:{name}"),
            Part::Param(name) => write!(formatter, "param:{name}"),
            Part::Host => formatter.write_str("host"),
            Part::Route => formatter.write_str("route"),
        }
    }
}

impl fmt::Display for Meter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Meter::Bucket(bucket) => {
                let interval = Duration::from_nanos(bucket.interval());
                write!(formatter, "one every {interval:?}, {} at once", bucket.burst())
            }
            Meter::Sliding(_) => {
                let (limit, seconds) = self.policy();
                write!(formatter, "{limit} in any {seconds} seconds")
            }
            Meter::Calendar(calendar) => {
                write!(formatter, "{} in each {} by UTC", calendar.quota(), calendar.period().word())
            }
        }
    }
}

impl Limit {
    /// What it would say to a request if nobody had asked before, in words, and whether it would let it through.
    pub fn explained(&self, applied: &Applied, facts: &Facts<'_>) -> (String, bool) {
        let mut params = applied.params.iter().copied();
        let key = self.key.parts.iter().map(|part| {
            let param = if matches!(part, Part::Param(_)) { params.next().unwrap_or_default() } else { 0 };
            match (part, facts.text(part, param)) {
                (Part::ClientIp, _) => format!("{part} {}", self.key.prefixes.network(facts.client)),
                (_, Some(value)) => format!("{part} `{}`", String::from_utf8_lossy(value)),
                (_, None) => format!("{part}, which it has not"),
            }
        });
        let key = key.collect::<Vec<_>>().join(" and ");
        let Some(meter) = self.allowance(applied, facts) else {
            return (format!("`{}` by {key}: without a bound", self.name), true);
        };
        let fits = matches!(meter.take(FRESH, Moment::default(), applied.cost, 0), Take::Taken { .. });
        let cost = if applied.cost == 1 { String::new() } else { format!("; it counts {}", applied.cost) };
        let does = match (self.mode, self.patience) {
            (Mode::Observe, _) => "; it only observes".to_owned(),
            (Mode::Enforce, 0) => String::new(),
            (Mode::Enforce, patience) => format!("; held back for up to {:?}", Duration::from_nanos(patience)),
        };
        let never = if fits { "" } else { "; it is more than is ever allowed" };
        (format!("`{}` by {key}: {meter}{cost}{does}{never}", self.name), fits || self.mode == Mode::Observe)
    }
}
