//! Times as RFC 3339 writes them, in UTC, to the microsecond.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::json::decimal;

const DAY_S: u64 = 24 * 60 * 60;

/// The time without what a record does not keep.
pub(super) fn whole_us(time: SystemTime) -> SystemTime {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    UNIX_EPOCH + Duration::new(since.as_secs(), since.subsec_micros() * 1000)
}

/// `2026-11-20T08:15:00.000042Z`; a time before 1970 is its beginning.
pub fn format(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / DAY_S, since.as_secs() % DAY_S);
    let (year, month, day) = date(days);
    let mut text = String::with_capacity(32);
    for (number, width, after) in [
        (year, 4, '-'),
        (month, 2, '-'),
        (day, 2, 'T'),
        (second / 3600, 2, ':'),
        (second / 60 % 60, 2, ':'),
        (second % 60, 2, '.'),
        (since.subsec_micros().into(), 6, 'Z'),
    ] {
        decimal(&mut text, number, width);
        text.push(after);
    }
    text
}

/// Reads what [`format`] wrote, with or without the fraction.
pub(super) fn parse(text: &str) -> Option<SystemTime> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let [year, month, day] = numbers(date, '-')?;
    let [hour, minute, second] = numbers(time, ':')?;
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let us: u64 = format!("{fraction:0<6}").get(..6)?.parse().ok()?;
    let s = days(year, month, day) * DAY_S + hour * 3600 + minute * 60 + second;
    Some(UNIX_EPOCH + Duration::from_secs(s) + Duration::from_micros(us))
}

fn numbers(text: &str, separator: char) -> Option<[u64; 3]> {
    let mut parts = text.split(separator).map(|part| part.parse::<u16>().ok());
    let numbers = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then(|| numbers.map(u64::from))
}

/// Year, month and day of a day since 1970. Counted in years from March on, so that the leap day comes last:
/// a month's first day is then (153 m + 2) / 5, and 400 years have 146,097 days.
fn date(days: u64) -> (u64, u64, u64) {
    let day = days + 719_468; // since 1 March of the year 0
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let year = era * 400 + year;
    if month < 10 {
        (year, month + 3, day)
    } else {
        (year + 1, month - 9, day)
    }
}

/// The reverse of [`date`].
fn days(year: u64, month: u64, day: u64) -> u64 {
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let day = (153 * month + 2) / 5 + day - 1;
    year * 365 + year / 4 - year / 100 + year / 400 + day - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By `date -u -d @SECONDS`.
    #[test]
    fn as_date_says() {
        for (s, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_399, "2000-02-28T23:59:59.000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000Z"),
            (951_868_800, "2000-03-01T00:00:00.000000Z"),
            (1_795_162_500, "2026-11-20T08:15:00.000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000Z"),
        ] {
            let time = UNIX_EPOCH + Duration::from_secs(s);
            assert_eq!(format(time), text);
            assert_eq!(parse(text), Some(time));
        }
    }

    #[test]
    fn every_day_comes_back() {
        for day in 0..200_000 {
            let (year, month, of_month) = date(day);
            assert_eq!(days(year, month, of_month), day);
        }
    }

    #[test]
    fn fractions_and_nonsense() {
        let us = |n| Some(UNIX_EPOCH + Duration::from_micros(n));
        assert_eq!(parse("1970-01-01T00:00:00.000042Z"), us(42));
        assert_eq!(parse("1970-01-01T00:00:00.5Z"), us(500_000));
        assert_eq!(parse("1970-01-01T00:00:01Z"), us(1_000_000));
        for text in [
            "",
            "Z",
            "1970-01-01",
            "1969-12-31T00:00:00Z",
            "1970-13-01T00:00:00Z",
            "1970-01-01T00:00Z",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(parse("1970-01-01T00:00:00.äöüZ"), None);
    }
}
