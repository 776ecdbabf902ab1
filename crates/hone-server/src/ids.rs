//! Names for what the service makes.

use std::sync::atomic::{AtomicI64, Ordering};

use rand::Rng;

/// A name that nothing else has: the prefix, the time, and 64 random bits. Later ones sort later.
pub(crate) fn new(prefix: &str) -> String {
    format!("{prefix}{:014x}{:016x}", ticks(), rand::rng().random::<u64>())
}

/// Microseconds since 1970, in a process never twice the same.
fn ticks() -> i64 {
    static LAST: AtomicI64 = AtomicI64::new(0);
    let now = jiff::Timestamp::now().as_microsecond();
    let next = |last: i64| now.max(last + 1);
    LAST.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |last| Some(next(last))).map_or(now, next)
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_are_in_order() {
        let names: Vec<String> = (0..1000).map(|_| super::new("x-")).collect();
        assert!(names.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
