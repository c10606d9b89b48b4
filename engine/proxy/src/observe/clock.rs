//! A core's clock: monotonic for what lasts, the wall's for when it was.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant, SystemTime};

use super::record::Nanos;

/// Reads the monotonic clock, and tells the wall's time from it: that one is read once a tick, so that a request
/// costs no reading of it and a clock that is set does not bend what lasts.
pub(crate) struct Clock {
    started: Instant,
    /// Both clocks at the last tick: the wall's in nanoseconds since 1970.
    tick: Cell<(u64, Nanos)>,
    second: RefCell<Second>,
}

/// A second as logs write it.
#[derive(Default)]
struct Second {
    since_1970: u64,
    /// `2026-11-24T01:44:29`
    rfc3339: String,
    /// `24/Nov/2026:01:44:29 +0000`
    combined: String,
}

impl Default for Clock {
    fn default() -> Self {
        let clock = Clock { started: Instant::now(), tick: Cell::default(), second: RefCell::default() };
        clock.tick();
        clock
    }
}

impl Clock {
    /// Nanoseconds since the core began.
    pub(crate) fn now(&self) -> Nanos {
        self.started.elapsed().as_nanos() as Nanos
    }

    /// How long after `start` it began, in nanoseconds.
    pub(crate) fn began_after(&self, start: Instant) -> Nanos {
        self.started.saturating_duration_since(start).as_nanos() as Nanos
    }

    /// The wall's time at a reading of this clock, in seconds since 1970.
    pub(crate) fn unix(&self, at: Nanos) -> u64 {
        self.wall(at) / 1_000_000_000
    }

    /// Compares both clocks.
    pub(crate) fn tick(&self) {
        let wall = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos() as u64);
        self.tick.set((wall, self.now()));
    }

    /// The wall's time at a reading of this clock, in nanoseconds since 1970.
    pub(crate) fn wall(&self, at: Nanos) -> u64 {
        let (wall, tick) = self.tick.get();
        if at >= tick { wall.saturating_add(at - tick) } else { wall.saturating_sub(tick - at) }
    }

    /// Appends the time of a reading as RFC 3339 has it, in UTC with microseconds.
    pub(crate) fn put_rfc3339(&self, out: &mut Vec<u8>, at: Nanos) {
        let wall = self.wall(at);
        self.with_second(wall, |second| out.extend_from_slice(second.rfc3339.as_bytes()));
        let mut micros = (wall % 1_000_000_000) / 1000;
        let mut digits = *b".000000Z";
        for digit in digits[1..7].iter_mut().rev() {
            *digit = b'0' + (micros % 10) as u8;
            micros /= 10;
        }
        out.extend_from_slice(&digits);
    }

    /// Appends the time of a reading as the common log format has it, in UTC.
    pub(crate) fn put_combined(&self, out: &mut Vec<u8>, at: Nanos) {
        self.with_second(self.wall(at), |second| out.extend_from_slice(second.combined.as_bytes()));
    }

    fn with_second(&self, wall: u64, with: impl FnOnce(&Second)) {
        let mut second = self.second.borrow_mut();
        let since_1970 = wall / 1_000_000_000;
        if second.since_1970 != since_1970 || second.rfc3339.is_empty() {
            second.set(since_1970);
        }
        with(&second);
    }
}

impl Second {
    fn set(&mut self, since_1970: u64) {
        // `Sun, 06 Nov 1994 08:49:37 GMT`: whoever makes this knows the calendar already.
        let date = httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(since_1970));
        let (day, name, year, time) = (&date[5..7], &date[8..11], &date[12..16], &date[17..25]);
        let names = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let month = names.iter().position(|month| *month == name).map_or(0, |month| month + 1);
        self.since_1970 = since_1970;
        self.rfc3339 = format!("{year}-{month:02}-{day}T{time}");
        self.combined = format!("{day}/{name}/{year}:{time} +0000");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_is_told_as_the_wall_s_time() {
        let clock = Clock::default();
        // 2024-02-29T23:59:59.999999Z, a tenth of a second before the last tick.
        clock.tick.set((1_709_251_200_099_999_000, 500_000_000));
        let (mut rfc3339, mut combined) = (Vec::new(), Vec::new());
        clock.put_rfc3339(&mut rfc3339, 400_000_000);
        clock.put_combined(&mut combined, 400_000_000);
        assert_eq!(String::from_utf8_lossy(&rfc3339), "2024-02-29T23:59:59.999999Z");
        assert_eq!(String::from_utf8_lossy(&combined), "29/Feb/2024:23:59:59 +0000");
        rfc3339.clear();
        clock.put_rfc3339(&mut rfc3339, 400_001_000);
        assert_eq!(String::from_utf8_lossy(&rfc3339), "2024-03-01T00:00:00.000000Z");
    }

    /// A clock that is set changes what time it is, not how long something took.
    #[test]
    fn a_wall_that_jumps_does_not_bend_the_clock() {
        let clock = Clock::default();
        let before = clock.now();
        clock.tick.set((0, before));
        assert_eq!(clock.wall(before), 0);
        assert!(clock.now() >= before);
        assert_eq!(clock.wall(before.saturating_sub(1)), 0);
    }
}
