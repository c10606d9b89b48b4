//! Dates of HTTP (RFC 9110 §5.6.7), read as a cache has to.

use std::time::{Duration, UNIX_EPOCH};

use super::UnixSeconds;

/// Reads a date in any of the three formats, whatever its case (RFC 9111 §4.2). `now` tells which century a year of
/// two digits belongs to. `None`: it is none of them, names another zone than GMT, or is a day that does not exist.
pub fn parse(value: &[u8], now: UnixSeconds) -> Option<UnixSeconds> {
    // The longest is `Wednesday, 06-Nov-94 08:49:37 GMT`.
    if !(24..=33).contains(&value.len()) {
        return None;
    }
    let comma = value.iter().position(|byte| *byte == b',');
    match comma {
        Some(3) => imf_fixdate(value),
        Some(at) => rfc850(value, at, now),
        None => asctime(value),
    }
}

/// The date as it is sent. A date before 1970 is sent as the first second of that year.
pub fn format(date: UnixSeconds) -> String {
    let since_1970 = date.clamp(0, LAST).unsigned_abs();
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(since_1970))
}

/// The last second of the year 9999, with which dates end.
const LAST: UnixSeconds = 253_402_300_799;

const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// `Sun, 06 Nov 1994 08:49:37 GMT`
fn imf_fixdate(value: &[u8]) -> Option<UnixSeconds> {
    let [weekday @ .., b',', b' '] = value.get(..5)? else { return None };
    is_weekday(weekday, 3).then_some(())?;
    let rest = value.get(5..)?;
    let [d1, d2, b' ', m1, m2, m3, b' ', y1, y2, y3, y4, b' ', time @ .., b' ', g, m, t] = rest else { return None };
    is_gmt(&[*g, *m, *t]).then_some(())?;
    seconds_of(number(&[*y1, *y2, *y3, *y4])?, month(&[*m1, *m2, *m3])?, number(&[*d1, *d2])?, time)
}

/// `Sunday, 06-Nov-94 08:49:37 GMT`
fn rfc850(value: &[u8], comma: usize, now: UnixSeconds) -> Option<UnixSeconds> {
    is_weekday(&value[..comma], usize::MAX).then_some(())?;
    let [b',', b' ', rest @ ..] = value.get(comma..)? else { return None };
    let [d1, d2, b'-', m1, m2, m3, b'-', y1, y2, b' ', time @ .., b' ', g, m, t] = rest else { return None };
    is_gmt(&[*g, *m, *t]).then_some(())?;
    let (short, month, day) = (number(&[*y1, *y2])?, month(&[*m1, *m2, *m3])?, number(&[*d1, *d2])?);
    // RFC 9110 §5.6.7: what seems to be more than 50 years ahead is the most recent year with these digits.
    let this_year = 1970 + now.div_euclid(31_556_952);
    let century = this_year.div_euclid(100) * 100;
    let year = [century + 100 + short, century + short, century - 100 + short].into_iter();
    let year = year.into_iter().find(|year| *year <= this_year + 50)?;
    seconds_of(year, month, day, time)
}

/// `Sun Nov  6 08:49:37 1994`
fn asctime(value: &[u8]) -> Option<UnixSeconds> {
    is_weekday(value.get(..3)?, 3).then_some(())?;
    let [b' ', m1, m2, m3, b' ', d1, d2, b' ', time @ .., b' ', y1, y2, y3, y4] = value.get(3..)? else { return None };
    let day = if *d1 == b' ' { number(&[*d2])? } else { number(&[*d1, *d2])? };
    seconds_of(number(&[*y1, *y2, *y3, *y4])?, month(&[*m1, *m2, *m3])?, day, time)
}

/// Whether it is the name of a day of the week, or its first letters. Whether it is the right one does not matter.
fn is_weekday(text: &[u8], letters: usize) -> bool {
    WEEKDAYS.iter().any(|day| text.eq_ignore_ascii_case(&day.as_bytes()[..letters.min(day.len())]))
}

/// RFC 9111 §4.2: a date with another zone is invalid.
fn is_gmt(text: &[u8]) -> bool {
    text.eq_ignore_ascii_case(b"GMT")
}

fn month(text: &[u8]) -> Option<i64> {
    (1..).zip(MONTHS).find_map(|(number, name)| text.eq_ignore_ascii_case(name.as_bytes()).then_some(number))
}

fn number(digits: &[u8]) -> Option<i64> {
    digits
        .iter()
        .all(u8::is_ascii_digit)
        .then(|| digits.iter().fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0')))
}

/// The seconds since 1970 of a day and a time of it, `08:49:37`.
fn seconds_of(year: i64, month: i64, day: i64, time: &[u8]) -> Option<UnixSeconds> {
    let [h1, h2, b':', m1, m2, b':', s1, s2] = time else { return None };
    let (hour, minute, second) = (number(&[*h1, *h2])?, number(&[*m1, *m2])?, number(&[*s1, *s2])?);
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        4 | 6 | 9 | 11 => 30,
        2 if is_leap => 29,
        2 => 28,
        _ => 31,
    };
    // 60 is a leap second.
    if !(1..=days).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    Some((days_since_1970(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second).min(LAST))
}

/// Days since 1970 by the Gregorian calendar, counted in years that begin in March.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: UnixSeconds = 1_795_573_000;

    fn read(text: &str) -> Option<UnixSeconds> {
        parse(text.as_bytes(), NOW)
    }

    /// RFC 9110 §5.6.7: three formats for one date; RFC 9111 §4.2: in any case.
    #[test]
    fn a_date_has_three_formats_in_any_case() {
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "Sun Nov 06 08:49:37 1994",
            "sUN, 06 nOV 1994 08:49:37 gmt",
            // The wrong day of the week.
            "Mon, 06 Nov 1994 08:49:37 GMT",
        ] {
            assert_eq!(read(text), Some(784_111_777), "{text}");
        }
        assert_eq!(read("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(read("Wed, 31 Dec 1969 23:59:59 GMT"), Some(-1));
        assert_eq!(read("Thu, 29 Feb 2024 23:59:60 GMT"), Some(1_709_251_200));
    }

    /// RFC 9110 §5.6.7: two digits that seem more than 50 years ahead are of the past.
    #[test]
    fn a_year_of_two_digits_is_the_nearest_that_is_not_far_ahead() {
        let year = |digits: &str| {
            let date = read(&format!("Monday, 01-Jul-{digits} 00:00:00 GMT"));
            date.map(|date| 1970 + date / 31_556_952)
        };
        assert_eq!((year("26"), year("76"), year("77"), year("99")), (Some(2026), Some(2076), Some(1977), Some(1999)));
    }

    /// RFC 9111 §4.2, §5.3.
    #[test]
    fn what_is_no_date() {
        for text in [
            "",
            "0",
            "-1",
            "abc",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 06 Nov 1994 08:49:37 AEST",
            "Sun, 06 Nov 1994 08:49:37 +0000",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 94 08:49:37 GMT",
            "Sun, 06-Nov-1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 8:49:37 GMT",
            "Sun, 06 Nov 1994 08.49.37 GMT",
            "Sun, 06  Nov 1994 08:49:37 GMT",
            "Sun,  06 Nov 1994 08:49:37 GMT",
            "Sun 06 Nov 1994 08:49:37 GMT",
            "Xyz, 06 Nov 1994 08:49:37 GMT",
            "Sun, 31 Nov 1994 08:49:37 GMT",
            "Sun, 29 Feb 1900 08:49:37 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:00:00 GMT",
            "Sun, 06 Nov 1994 08:60:00 GMT",
            "Sun, 06 Nov 1994 08:49:61 GMT",
            "Sun, 06 Foo 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:38 GMT",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    proptest! {
        /// What is written is read again, and as `httpdate` reads it.
        #[test]
        fn a_date_that_is_written_is_read_again(date in 0..LAST) {
            let text = format(date);
            prop_assert_eq!(parse(text.as_bytes(), NOW), Some(date), "{}", &text);
            let theirs = httpdate::parse_http_date(&text).ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
            prop_assert_eq!(theirs.map(|since| since.as_secs()), u64::try_from(date).ok());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40), now in any::<i32>()) {
            let _ = parse(&bytes, i64::from(now));
        }
    }
}
