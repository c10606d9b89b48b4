//! What an account is: one word, so that a core changes it by one compare-and-swap.
//!
//! The two highest bits say what the rest means. A word of nothing but zeros is an account that nobody has used, and
//! so is every word whose time has passed: it carries no information and may be forgotten.

/// An account. How it changes is for [`super::Meter`] to say.
pub type Word = u64;

/// Nanoseconds of the monotonic clock since the process began.
pub type Nanos = u64;

/// An account that nobody has used.
pub const FRESH: Word = 0;

/// What stands in an account's place while it is being given to another key.
pub const HELD: Word = Word::MAX;

const KIND_SHIFT: u32 = 62;
const PAYLOAD: Word = (1 << KIND_SHIFT) - 1;
const WINDOWS: Word = 1;
const PERIOD: Word = 2;

/// Bits of a count in a pair of windows.
const COUNT_BITS: u32 = 17;
/// Bits of what was used of a period.
const USED_BITS: u32 = 36;

/// The most that a sliding window can count.
pub const SLIDING_MAX: u64 = (1 << COUNT_BITS) - 1;
/// The most that a calendar quota can count.
pub const QUOTA_MAX: u64 = (1 << USED_BITS) - 1;

const NANOS_PER_SECOND: Nanos = 1_000_000_000;

/// When a decision is made, by both clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// By the monotonic one.
    pub now: Nanos,
    /// By the wall's: seconds since 1970.
    pub unix: u64,
}

impl Moment {
    /// Whole seconds of the monotonic clock.
    pub fn seconds(self) -> u64 {
        self.now / NANOS_PER_SECOND
    }
}

/// What a word says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The theoretical arrival time of the generic cell rate algorithm.
    Arrival(Nanos),
    /// Two windows, by the second at which the later one's successor ends.
    Windows { dead_at: u64, previous: u64, current: u64 },
    /// What was used of a period that ends at this minute since 1970.
    Period { end_minute: u64, used: u64 },
    /// It is being given to another key.
    Held,
}

impl State {
    pub(super) fn of(word: Word) -> State {
        let payload = word & PAYLOAD;
        match word >> KIND_SHIFT {
            0 => State::Arrival(payload),
            WINDOWS => State::Windows {
                dead_at: payload >> (2 * COUNT_BITS),
                previous: payload >> COUNT_BITS & SLIDING_MAX,
                current: payload & SLIDING_MAX,
            },
            PERIOD => State::Period { end_minute: payload >> USED_BITS, used: payload & QUOTA_MAX },
            _ => State::Held,
        }
    }

    /// Counts that have no room are as large as there is room for.
    pub(super) fn word(self) -> Word {
        match self {
            State::Arrival(at) => at.min(PAYLOAD),
            State::Windows { dead_at, previous, current } => {
                let dead_at = dead_at.min((1 << (KIND_SHIFT - 2 * COUNT_BITS)) - 1);
                let counts = previous.min(SLIDING_MAX) << COUNT_BITS | current.min(SLIDING_MAX);
                WINDOWS << KIND_SHIFT | dead_at << (2 * COUNT_BITS) | counts
            }
            State::Period { end_minute, used } => {
                let end_minute = end_minute.min((1 << (KIND_SHIFT - USED_BITS)) - 1);
                PERIOD << KIND_SHIFT | end_minute << USED_BITS | used.min(QUOTA_MAX)
            }
            State::Held => HELD,
        }
    }
}

/// Whether a word carries no information any more, so that its cell may be given to another key.
pub fn is_spent(word: Word, moment: Moment) -> bool {
    match State::of(word) {
        State::Arrival(at) => at <= moment.now,
        State::Windows { dead_at, .. } => dead_at <= moment.seconds(),
        State::Period { end_minute, .. } => end_minute.saturating_mul(60) <= moment.unix,
        State::Held => false,
    }
}

/// Whether a word tells of a calendar quota, which outlives the process.
pub fn is_lasting(word: Word) -> bool {
    matches!(State::of(word), State::Period { .. })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(a in 0..1u64 << 26, b in 0..=SLIDING_MAX, c in 0..=SLIDING_MAX, d in 0..=QUOTA_MAX) {
            for state in [
                State::Arrival(d),
                State::Windows { dead_at: a, previous: b, current: c },
                State::Period { end_minute: a, used: d },
                State::Held,
            ] {
                prop_assert_eq!(State::of(state.word()), state);
            }
        }
    }

    #[test]
    fn a_word_is_spent_when_its_time_has_passed() {
        let moment = Moment { now: 10 * NANOS_PER_SECOND, unix: 600 };
        for (state, spent) in [
            (State::Arrival(0), true),
            (State::Arrival(10 * NANOS_PER_SECOND), true),
            (State::Arrival(10 * NANOS_PER_SECOND + 1), false),
            (State::Windows { dead_at: 10, previous: 1, current: 1 }, true),
            (State::Windows { dead_at: 11, previous: 1, current: 1 }, false),
            (State::Period { end_minute: 10, used: 1 }, true),
            (State::Period { end_minute: 11, used: 1 }, false),
            (State::Held, false),
        ] {
            assert_eq!(is_spent(state.word(), moment), spent, "{state:?}");
        }
    }
}
