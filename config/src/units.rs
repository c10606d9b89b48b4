//! Durations, sizes and rates as they are written: a whole number and its unit.

use std::time::Duration;

/// Why a quantity cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// There is no number in front.
    #[error("it does not start with a whole number")]
    NoNumber,
    /// There is no unit behind the number.
    #[error("a unit is missing")]
    NoUnit,
    /// The unit is none of those that are known.
    #[error("`{0}` is no unit here")]
    UnknownUnit(String),
    /// It does not fit 64 bits.
    #[error("it is too large")]
    TooLarge,
}

const DURATIONS: &[(&str, u64)] = &[("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const SIZES: &[(&str, u64)] = &[
    ("B", 1),
    ("KB", 1000),
    ("KiB", 1 << 10),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
];

/// A duration: `"250ms"`, `"10s"`, `"5m"`, `"1h"`, `"1d"`.
pub fn duration(text: &str) -> Result<Duration, UnitError> {
    quantity(text, DURATIONS).map(Duration::from_millis)
}

/// Bytes: `"512B"`, `"10KB"`, `"64KiB"`, `"16MiB"`.
pub fn size(text: &str) -> Result<u64, UnitError> {
    quantity(text, SIZES)
}

/// Bytes per second: `"500B/s"`.
pub fn byte_rate(text: &str) -> Result<u64, UnitError> {
    match text.strip_suffix("/s") {
        Some(size) => self::size(size),
        None if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() => Err(UnitError::NoUnit),
        None => Err(UnitError::UnknownUnit(text.trim_start_matches(|c: char| c.is_ascii_digit()).to_owned())),
    }
}

/// How often a second: `"100/s"`.
pub fn per_second(text: &str) -> Result<u64, UnitError> {
    quantity(text, &[("/s", 1)])
}

/// A part of a hundred: `"20%"`.
pub fn percent(text: &str) -> Result<u64, UnitError> {
    quantity(text, &[("%", 1)])
}

fn quantity(text: &str, units: &[(&str, u64)]) -> Result<u64, UnitError> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(UnitError::NoNumber);
    }
    if unit.is_empty() {
        return Err(UnitError::NoUnit);
    }
    let known = units.iter().find(|(name, _)| *name == unit);
    let (_, factor) = known.ok_or_else(|| UnitError::UnknownUnit(unit.to_owned()))?;
    // All digits, so the number can only be too large.
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(*factor)).ok_or(UnitError::TooLarge)
}

/// A duration in milliseconds as one would write it.
pub fn show_duration(milliseconds: u64) -> String {
    show(milliseconds, DURATIONS.iter())
}

/// Bytes as one would write them.
pub fn show_size(bytes: u64) -> String {
    show(bytes, SIZES.iter().filter(|(unit, _)| *unit == "B" || unit.ends_with("iB")))
}

/// In the largest unit of which it is a multiple.
fn show<'u>(value: u64, units: impl DoubleEndedIterator<Item = &'u (&'u str, u64)> + Clone) -> String {
    let exact = units.clone().rev().find(|(_, factor)| value.is_multiple_of(*factor) && value > 0);
    let (unit, factor) = exact.or_else(|| units.clone().next()).copied().unwrap_or(("", 1));
    format!("{}{unit}", value / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_have_units() {
        for (text, expected) in [
            ("250ms", Ok(250)),
            ("10s", Ok(10_000)),
            ("5m", Ok(300_000)),
            ("1h", Ok(3_600_000)),
            ("1d", Ok(86_400_000)),
            ("0s", Ok(0)),
            ("10", Err(UnitError::NoUnit)),
            ("", Err(UnitError::NoNumber)),
            ("s", Err(UnitError::NoNumber)),
            ("-1s", Err(UnitError::NoNumber)),
            ("1.5s", Err(UnitError::UnknownUnit(".5s".into()))),
            ("10 s", Err(UnitError::UnknownUnit(" s".into()))),
            ("99999999999999999999s", Err(UnitError::TooLarge)),
            ("9999999999999999999d", Err(UnitError::TooLarge)),
        ] {
            assert_eq!(duration(text), expected.map(Duration::from_millis), "{text}");
        }
        for (text, expected) in [
            ("512B", Ok(512)),
            ("10KB", Ok(10_000)),
            ("64KiB", Ok(65_536)),
            ("16MiB", Ok(16 << 20)),
            ("2GB", Ok(2_000_000_000)),
            ("1kb", Err(UnitError::UnknownUnit("kb".into()))),
            ("64", Err(UnitError::NoUnit)),
        ] {
            assert_eq!(size(text), expected, "{text}");
        }
        for (text, expected) in [
            ("500B/s", Ok(500)),
            ("4MiB/s", Ok(4 << 20)),
            ("500", Err(UnitError::NoUnit)),
            ("500B", Err(UnitError::UnknownUnit("B".into()))),
            ("500/s", Err(UnitError::NoUnit)),
        ] {
            assert_eq!(byte_rate(text), expected, "{text}");
        }
        assert_eq!((percent("20%"), percent("20")), (Ok(20), Err(UnitError::NoUnit)));
    }

    #[test]
    fn what_is_shown_reads_back() {
        for value in [0, 1, 100, 1000, 1024, 90_000, 86_400_000, 61_440, 1 << 32] {
            assert_eq!(duration(&show_duration(value)), Ok(Duration::from_millis(value)));
            assert_eq!(size(&show_size(value)), Ok(value));
        }
        assert_eq!(show_duration(86_400_000), "1d");
        assert_eq!(show_size(61_440), "60KiB");
    }
}
