//! Numbers as people read them.

use serde::{Deserialize, Deserializer};

/// Reads `null` as NaN: JSON has no other word for what a diverged run gives, and serde_json writes NaN so.
pub(super) fn or_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

/// The same for the two ends of an interval.
pub(super) fn ends_or_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<[f64; 2]>, D::Error> {
    let ends = Option::<[Option<f64>; 2]>::deserialize(deserializer)?;
    Ok(ends.map(|ends| ends.map(|end| end.unwrap_or(f64::NAN))))
}

/// A whole number with its thousands apart: `12,345`.
pub(super) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `value` with `decimals` places; a true minus sign, no negative zero, `–` where it is no number.
pub(super) fn fixed(value: f64, decimals: usize) -> String {
    if value.is_nan() {
        return "–".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "∞".into() } else { "−∞".into() };
    }
    if value.abs() >= 1e15 {
        return format!("{value:.2e}").replace('-', "−");
    }
    let text = format!("{:.decimals$}", value.abs());
    let zero = text.bytes().all(|byte| matches!(byte, b'0' | b'.'));
    if value < 0.0 && !zero { format!("−{text}") } else { text }
}

/// [`fixed`] with a `+` before what is above zero.
pub(super) fn signed(value: f64, decimals: usize) -> String {
    let text = fixed(value, decimals);
    let above = value > 0.0 && text.bytes().any(|byte| matches!(byte, b'1'..=b'9')) || value == f64::INFINITY;
    if above { format!("+{text}") } else { text }
}

/// `value` to about three significant digits, powers of ten where it is far from 1.
pub(super) fn short(value: f64) -> String {
    let size = value.abs();
    match size {
        _ if !value.is_finite() => fixed(value, 0),
        0.0 => "0".into(),
        _ if !(1e-3..1e6).contains(&size) => {
            let text = format!("{value:.2e}");
            let (digits, power) = text.split_once('e').unwrap_or((&text, "0"));
            let digits = if digits.contains('.') {
                digits.trim_end_matches('0').trim_end_matches('.')
            } else {
                digits
            };
            format!("{digits}e{power}").replace('-', "−")
        }
        _ if size >= 100.0 => fixed(value, 0),
        _ => {
            // 3 digits from the first that is not 0.
            let decimals = (2.0 - size.log10().floor()).clamp(0.0, 6.0) as usize;
            let text = fixed(value, decimals);
            if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').into() } else { text }
        }
    }
}

/// A share in `[0, 1]` as per cent: `43.2 %`.
pub(super) fn percent(share: f64) -> String {
    format!("{}\u{a0}%", fixed(100.0 * share, 1))
}

/// Seconds as people say them: `41 s`, `2 min 5 s`, `1 h 3 min`.
pub(super) fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "–".into();
    }
    if seconds < 9.95 {
        return format!("{seconds:.1}\u{a0}s");
    }
    let whole = seconds.round() as u64;
    match (whole / 3600, whole / 60 % 60, whole % 60) {
        (0, 0, s) => format!("{s}\u{a0}s"),
        (0, m, s) => format!("{m}\u{a0}min {s}\u{a0}s"),
        (h, m, _) => format!("{}\u{a0}h {m}\u{a0}min", count(h)),
    }
}

/// How many parameters or bytes: `3.7 M`, `1.24 G`.
pub(super) fn size(n: u64) -> String {
    const STEPS: [(u64, &str); 4] =
        [(1_000_000_000_000, "T"), (1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")];
    match STEPS.iter().find(|(step, _)| n >= *step) {
        Some((step, name)) => format!("{}\u{a0}{name}", short(n as f64 / *step as f64)),
        None => n.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_people_write_them() {
        assert_eq!(["0", "999", "1,000", "1,234,567"], [0, 999, 1000, 1_234_567].map(count));
        assert_eq!(["0.0", "−0.1", "0.0", "12.3"], [0.0, -0.06, -0.04, 12.34].map(|x| fixed(x, 1)));
        assert_eq!(["+1.0", "0.0", "−1.0", "0.0"], [1.0, 0.0, -1.0, 0.04].map(|x| signed(x, 1)));
        assert_eq!(["–", "∞", "−∞"], [f64::NAN, f64::INFINITY, f64::NEG_INFINITY].map(|x| fixed(x, 2)));
        assert_eq!(fixed(1e300, 2), "1.00e300");
        assert_eq!(
            ["0", "0.00123", "1.5", "123", "2e6", "5e−5"],
            [0.0, 0.00123, 1.5, 123.4, 2e6, 5e-5].map(short)
        );
        assert_eq!(short(-0.25), "−0.25");
        assert_eq!(percent(0.5432), "54.3\u{a0}%");
        assert_eq!(["3.7\u{a0}M", "512", "1.24\u{a0}G"], [3_700_000, 512, 1_240_000_000].map(size));
    }

    #[test]
    fn durations() {
        let shown = [0.25, 41.0, 125.0, 3780.0, f64::NAN].map(duration);
        assert_eq!(shown, ["0.2\u{a0}s", "41\u{a0}s", "2\u{a0}min 5\u{a0}s", "1\u{a0}h 3\u{a0}min", "–"]);
    }
}
