//! Periods of the calendar, by UTC.

const DAY: u64 = 24 * 3600;

/// A period of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    /// From one full minute to the next.
    Minute,
    /// From one full hour to the next.
    Hour,
    /// From midnight to midnight.
    Day,
    /// From the first of a month to the first of the next.
    Month,
}

impl Period {
    /// When the period of a time ends; both in seconds since 1970.
    pub fn end(self, unix: u64) -> u64 {
        let fixed = |seconds: u64| (unix / seconds).saturating_add(1).saturating_mul(seconds);
        match self {
            Period::Minute => fixed(60),
            Period::Hour => fixed(3600),
            Period::Day => fixed(DAY),
            Period::Month => month_end(unix / DAY).saturating_mul(DAY),
        }
    }

    /// How long it is at most, in seconds.
    pub fn seconds_max(self) -> u64 {
        match self {
            Period::Minute => 60,
            Period::Hour => 3600,
            Period::Day => DAY,
            Period::Month => 31 * DAY,
        }
    }

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Period::Minute => "minute",
            Period::Hour => "hour",
            Period::Day => "day",
            Period::Month => "month",
        }
    }
}

/// The first day of the month after that of `day`; both count from 1970.
///
/// In years that begin in March the leap day is the last one, and months begin where a straight line crosses days.
fn month_end(day: u64) -> u64 {
    /// From the first of March of the year 0 to 1970.
    const BEFORE_1970: u64 = 719_468;
    /// Four hundred years always have as many days.
    const CYCLE: u64 = 146_097;
    let days = day.saturating_add(BEFORE_1970);
    let (cycle_start, of_cycle) = (days - days % CYCLE, days % CYCLE);
    let year = (of_cycle - of_cycle / 1460 + of_cycle / 36_524 - of_cycle / (CYCLE - 1)) / 365;
    let year_start = |year: u64| if year == 400 { CYCLE } else { 365 * year + year / 4 - year / 100 };
    let month = (5 * (of_cycle - year_start(year)) + 2) / 153;
    let end = if month == 11 { year_start(year + 1) } else { year_start(year) + (153 * (month + 1) + 2) / 5 };
    (cycle_start + end).saturating_sub(BEFORE_1970)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Days by `date -u -d ... +%s`.
    #[test]
    fn periods_end_at_utc_boundaries() {
        for (period, unix, end) in [
            (Period::Minute, 0, 60),
            (Period::Minute, 59, 60),
            (Period::Minute, 60, 120),
            (Period::Hour, 3_599, 3_600),
            (Period::Day, 0, 86_400),
            (Period::Day, 86_399, 86_400),
            (Period::Day, 86_400, 172_800),
            // January 1970, and the leap days of 2000, 2024 and 2100, which has none.
            (Period::Month, 0, 2_678_400),
            (Period::Month, 951_782_399, 951_868_800),
            (Period::Month, 951_868_799, 951_868_800),
            (Period::Month, 951_868_800, 954_547_200),
            (Period::Month, 1_709_164_800, 1_709_251_200),
            (Period::Month, 4_107_456_000, 4_107_542_400),
            // The end of a year.
            (Period::Month, 1_767_225_599, 1_767_225_600),
        ] {
            assert_eq!(period.end(unix), end, "{period:?} {unix}");
        }
    }

    /// Against counting the days of each month.
    #[test]
    fn months_end_where_counting_says() {
        let is_leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        let mut first = 0;
        for year in 1970..2500 {
            for (month, days) in [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31].into_iter().enumerate() {
                let next = first + days + u64::from(month == 1 && is_leap(year));
                for day in first..next {
                    assert_eq!(month_end(day), next, "{year}-{}", month + 1);
                }
                first = next;
            }
        }
    }
}
