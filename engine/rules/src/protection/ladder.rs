//! Who has taken which step, and when the next one is due.
//!
//! A client that trips takes the first step. While a measure holds it is judged by what it goes on to ask for, refused
//! or not; if it trips again then, or within the same time after the measure has ended, it takes the next step. Once
//! that time has passed it is forgotten. The last step is taken again and again.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use super::{Measure, Mode, Protection, Rung, Subject, Trip};

/// Clients that are known to have tripped at a time. While there are so many, nobody new is judged.
pub const STANDINGS_MAX: usize = 65_536;

/// How long a measure is given to show, before a client that goes on takes the next step: what it had under way when
/// it was judged is no second offence. Errors are looked at over ten seconds, and none counts twice.
fn grace(cause: Cause) -> Duration {
    match cause {
        Cause::Requests => Duration::from_secs(3),
        Cause::Errors => Duration::from_secs(10),
    }
}

/// What a client was seen to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Requests in the last second, at least.
    pub requests: u64,
    /// Requests in the last while, at least.
    pub requests_lately: u64,
    /// How many of these failed by its own fault.
    pub errors_lately: u64,
}

/// Why a client takes a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// More requests in a second than [`Trip::requests`].
    Requests,
    /// A greater share of errors than [`Trip::errors_percent`].
    Errors,
}

impl Cause {
    /// Both.
    pub const ALL: [Cause; 2] = [Cause::Requests, Cause::Errors];

    /// The key of the rule, and the word in events.
    pub fn word(self) -> &'static str {
        match self {
            Cause::Requests => "requests",
            Cause::Errors => "errors",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl Trip {
    /// Whether this is too much, and why. Both bounds are exact: what is seen has to be above.
    pub fn trips(&self, seen: Observed) -> Option<Cause> {
        if seen.requests > u64::from(self.requests) {
            return Some(Cause::Requests);
        }
        let (errors, all) = (seen.errors_lately.saturating_mul(100), seen.requests_lately);
        let is_many = errors > all.saturating_mul(u64::from(self.errors_percent));
        (all >= u64::from(self.requests_min) && is_many).then_some(Cause::Errors)
    }
}

/// A step that a client takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Who.
    pub subject: Subject,
    /// Which step, counted from 1.
    pub number: usize,
    /// What is done, or would be.
    pub rung: Rung,
    /// Whether it is done.
    pub mode: Mode,
    /// Why.
    pub cause: Cause,
    /// What was seen.
    pub seen: Observed,
}

/// Where a client stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stand {
    /// The step that it has taken, counted from 1.
    pub number: usize,
    /// What is done.
    pub measure: Measure,
    /// Why.
    pub cause: Cause,
    /// Since when. All times are from one moment in the past.
    pub since: Duration,
    /// Until when.
    pub until: Duration,
    /// When it is forgotten.
    pub forgotten: Duration,
}

/// All clients that have tripped lately.
#[derive(Debug, Default)]
pub struct Ladder {
    standings: HashMap<Subject, Stand>,
}

impl Ladder {
    /// Judges a client by what it was seen to do until `now`.
    pub fn judge(&mut self, protection: &Protection, subject: Subject, seen: Observed, now: Duration) -> Option<Step> {
        let cause = protection.trip.trips(seen)?;
        if protection.exempt.contains(subject.address()) {
            return None;
        }
        let before = self.standings.get(&subject).filter(|stand| stand.forgotten > now);
        if before.is_none() && self.standings.len() >= STANDINGS_MAX {
            return None;
        }
        if before.is_some_and(|stand| now < stand.since.saturating_add(grace(cause))) {
            return None;
        }
        let number = before.map_or(1, |stand| stand.number + 1).min(protection.ladder.len());
        let rung = *protection.ladder.get(number.checked_sub(1)?)?;
        let until = now.saturating_add(rung.time);
        let forgotten = until.saturating_add(rung.time);
        let stand = Stand { number, measure: rung.measure, cause, since: now, until, forgotten };
        self.standings.insert(subject, stand);
        Some(Step { subject, number, rung, mode: protection.mode, cause, seen })
    }

    /// Forgets those whose time has passed.
    pub fn sweep(&mut self, now: Duration) {
        self.standings.retain(|_, stand| stand.forgotten > now);
    }

    /// Lets a client off. Whether it was known.
    pub fn forget(&mut self, subject: Subject) -> bool {
        self.standings.remove(&subject).is_some()
    }

    /// Forgets all, since the rules have changed.
    pub fn clear(&mut self) {
        self.standings.clear();
    }

    /// Those that a measure holds for at `now`, in no order.
    pub fn held(&self, now: Duration) -> impl Iterator<Item = (Subject, Stand)> + '_ {
        self.standings.iter().filter(move |(_, stand)| stand.until > now).map(|(subject, stand)| (*subject, *stand))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TRIP: Trip = Trip { requests: 500, errors_percent: 50, requests_min: 100 };

    fn protection() -> Protection {
        let rung = |measure, seconds| Rung { measure, time: Duration::from_secs(seconds) };
        let ladder = vec![rung(Measure::Throttle, 30), rung(Measure::Tarpit, 60), rung(Measure::Ban, 600)];
        let exempt = ["10.0.0.0/8"].iter().map(|network| network.parse().expect("a network")).collect();
        Protection { mode: Mode::Enforce, trip: TRIP, ladder, throttle: 10, exempt }
    }

    fn subject(last: u8) -> Subject {
        Subject::of([192, 0, 2, last].into())
    }

    const FLOOD: Observed = Observed { requests: 10_000, requests_lately: 10_000, errors_lately: 0 };

    #[test]
    fn a_client_trips_above_its_bounds_and_not_at_them() {
        let seen = |requests, requests_lately, errors_lately| Observed { requests, requests_lately, errors_lately };
        let cases = [
            (seen(500, 5000, 0), None),
            (seen(501, 501, 0), Some(Cause::Requests)),
            (seen(10, 99, 99), None),
            (seen(10, 100, 50), None),
            (seen(10, 100, 51), Some(Cause::Errors)),
            (seen(0, 0, 0), None),
            (seen(u64::MAX, u64::MAX, u64::MAX), Some(Cause::Requests)),
        ];
        for (seen, expected) in cases {
            assert_eq!(TRIP.trips(seen), expected, "{seen:?}");
        }
    }

    /// In seconds: when a client trips, and which step it takes then.
    #[test]
    fn who_goes_on_takes_the_next_step_and_who_stops_is_forgotten() {
        let cases: [&[(u64, Option<usize>)]; 5] = [
            // While the measure holds, once it could show.
            &[(0, Some(1)), (2, None), (3, Some(2)), (6, Some(3))],
            // Within the same time after it.
            &[(0, Some(1)), (59, Some(2)), (59 + 119, Some(3))],
            // Later: from the beginning.
            &[(0, Some(1)), (60, Some(1))],
            // The last step again and again.
            &[(0, Some(1)), (5, Some(2)), (10, Some(3)), (700, Some(3)), (1900 - 1, Some(3))],
            &[(0, Some(1)), (5, Some(2)), (10, Some(3)), (10 + 1200, Some(1))],
        ];
        let protection = protection();
        for case in cases {
            let mut ladder = Ladder::default();
            for (second, expected) in case {
                let step = ladder.judge(&protection, subject(1), FLOOD, Duration::from_secs(*second));
                assert_eq!(step.map(|step| step.number), *expected, "at {second} of {case:?}");
            }
        }
    }

    /// Errors that had a client take a step do not have it take another.
    #[test]
    fn no_error_counts_twice() {
        let errors = Observed { requests: 1, requests_lately: 120, errors_lately: 119 };
        let (mut ladder, protection) = (Ladder::default(), protection());
        let mut step = |second| ladder.judge(&protection, subject(1), errors, Duration::from_secs(second));
        assert_eq!(step(0).map(|step| step.number), Some(1));
        assert!((1..10).all(|second| step(second).is_none()));
        assert_eq!(step(10).map(|step| step.number), Some(2), "it has gone on");
    }

    #[test]
    fn a_measure_holds_for_its_time_and_no_longer() {
        let mut ladder = Ladder::default();
        ladder.judge(&protection(), subject(1), FLOOD, Duration::ZERO);
        let held = |ladder: &Ladder, second| ladder.held(Duration::from_secs(second)).count();
        assert_eq!((held(&ladder, 29), held(&ladder, 30)), (1, 0));
        ladder.sweep(Duration::from_secs(59));
        assert_eq!(ladder.standings.len(), 1, "a second offence counts as one");
        ladder.sweep(Duration::from_secs(60));
        assert!(ladder.standings.is_empty());
    }

    #[test]
    fn who_is_exempt_is_never_judged() {
        let step = Ladder::default().judge(&protection(), Subject::of([10, 0, 0, 1].into()), FLOOD, Duration::ZERO);
        assert_eq!(step, None);
    }

    proptest! {
        /// Nobody below the bounds takes a step, whatever others do; and steps are never skipped.
        #[test]
        fn only_who_trips_takes_a_step_and_one_at_a_time(
            events in proptest::collection::vec((0u8..4, 0u64..1200, 0u64..200, 0u64..200, 0u64..40), 1..200),
        ) {
            let (protection, mut ladder) = (protection(), Ladder::default());
            let mut now = Duration::ZERO;
            let mut last = [0usize; 4];
            for (client, requests, requests_lately, errors, pause) in events {
                now += Duration::from_secs(pause);
                let seen = Observed { requests, requests_lately, errors_lately: errors.min(requests_lately) };
                let Some(step) = ladder.judge(&protection, subject(client), seen, now) else { continue };
                prop_assert!(TRIP.trips(seen).is_some());
                let before = last[usize::from(client)];
                prop_assert!(step.number == 1 || step.number == (before + 1).min(3), "{} after {before}", step.number);
                last[usize::from(client)] = step.number;
            }
        }
    }
}
