//! How much a request matters, and how it says so.

use std::fmt;

/// How much a request matters: 0 the most, 7 the least, as in RFC 9218.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Urgency(u8);

impl Urgency {
    /// How many there are.
    pub const COUNT: usize = 8;
    /// What matters most.
    pub const MOST: Urgency = Urgency(0);
    /// `high`.
    pub const HIGH: Urgency = Urgency(1);
    /// `normal`, and what says nothing (RFC 9218 §4.1).
    pub const NORMAL: Urgency = Urgency(3);
    /// `low`.
    pub const LOW: Urgency = Urgency(5);
    /// What matters least.
    pub const LEAST: Urgency = Urgency(7);

    /// The urgency of this number. `None`: there is none.
    pub const fn new(number: u8) -> Option<Urgency> {
        if (number as usize) < Urgency::COUNT { Some(Urgency(number)) } else { None }
    }

    /// Its number.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Its place in a table of all of them.
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// Reads a word: `high`, `normal`, `low`, or a number from 0 to 7. `None`: it is none of these.
    pub fn read(word: &[u8]) -> Option<Urgency> {
        match word {
            [digit @ b'0'..=b'7'] => Some(Urgency(digit - b'0')),
            word if word.eq_ignore_ascii_case(b"high") => Some(Urgency::HIGH),
            word if word.eq_ignore_ascii_case(b"normal") => Some(Urgency::NORMAL),
            word if word.eq_ignore_ascii_case(b"low") => Some(Urgency::LOW),
            _ => None,
        }
    }

    /// Reads the parameter `u` of a `Priority` field (RFC 9218 §4.1). `None`: it does not say, or not validly.
    pub fn read_parameter(value: &[u8]) -> Option<Urgency> {
        let member = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        // RFC 8941 §3.2: of several members of a name, the last one counts.
        let urgency = member.filter_map(|member| member.strip_prefix(b"u=")).next_back()?;
        match urgency {
            [digit @ b'0'..=b'7'] => Some(Urgency(digit - b'0')),
            _ => None,
        }
    }
}

impl Default for Urgency {
    fn default() -> Self {
        Urgency::NORMAL
    }
}

impl fmt::Display for Urgency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_numbers_are_read() {
        for (word, expected) in [
            ("high", Some(1)),
            ("HIGH", Some(1)),
            ("normal", Some(3)),
            ("low", Some(5)),
            ("0", Some(0)),
            ("7", Some(7)),
            ("8", None),
            ("-1", None),
            ("07", None),
            ("", None),
            ("highest", None),
            ("u=1", None),
        ] {
            assert_eq!(Urgency::read(word.as_bytes()).map(Urgency::number), expected, "{word}");
        }
    }

    #[test]
    fn the_priority_field_is_read_as_rfc_9218_has_it() {
        for (value, expected) in [
            ("u=5", Some(5)),
            ("u=5, i", Some(5)),
            ("i,u=0", Some(0)),
            ("u=1, u=2", Some(2)),
            ("i", None),
            ("", None),
            ("u=8", None),
            ("u=-1", None),
            ("u", None),
            ("U=1", None),
        ] {
            assert_eq!(Urgency::read_parameter(value.as_bytes()).map(Urgency::number), expected, "{value}");
        }
    }
}
