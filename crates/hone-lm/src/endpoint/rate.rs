//! Limits per minute.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A bucket that fills at a steady rate and holds one second's worth, at least one unit.
#[derive(Debug)]
pub(super) struct Rate {
    per_second: f64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Units to spend; below 0 where they are promised to those who wait.
    level: f64,
    at: Instant,
}

impl Rate {
    pub(super) fn per_minute(limit: u32) -> Self {
        let per_second = f64::from(limit.max(1)) / 60.0;
        Rate { per_second, state: Mutex::new(State { level: per_second.max(1.0), at: Instant::now() }) }
    }

    /// Takes units and says how long to wait before they may be used. Those who come later wait longer.
    pub(super) fn take(&self, units: f64, now: Instant) -> Duration {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.fill(&mut state, now);
        state.level -= units;
        if state.level >= 0.0 {
            Duration::ZERO
        } else {
            Duration::from_secs_f64(-state.level / self.per_second)
        }
    }

    /// Gives units back, or takes more, once the true number is known.
    pub(super) fn correct(&self, taken: f64, used: f64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.level += taken - used;
    }

    fn fill(&self, state: &mut State, now: Instant) {
        let passed = now.saturating_duration_since(state.at).as_secs_f64();
        state.level = (state.level + passed * self.per_second).min(self.per_second.max(1.0));
        state.at = now.max(state.at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_second_at_once_then_steadily() {
        // 600 a minute: 10 at once, then one every 0.1 s; the 25th waits 15 × 0.1 s.
        let start = Instant::now();
        let rate = Rate::per_minute(600);
        let mut waits: Vec<f64> = (0..25).map(|_| rate.take(1.0, start).as_secs_f64()).collect();
        assert!(waits[..10].iter().all(|w| *w == 0.0), "{waits:?}");
        assert!((waits[24] - 1.5).abs() < 0.01, "{waits:?}");
        // Two seconds later all promises are kept and 0.5 s worth is there.
        waits = (0..6).map(|_| rate.take(1.0, start + Duration::from_secs(2)).as_secs_f64()).collect();
        assert!(waits[4] < 0.001 && (waits[5] - 0.1).abs() < 0.01, "{waits:?}");
    }

    #[test]
    fn an_estimate_is_corrected() {
        let start = Instant::now();
        let rate = Rate::per_minute(6000);
        assert_eq!(rate.take(100.0, start), Duration::ZERO);
        rate.correct(100.0, 20.0);
        assert_eq!(rate.take(80.0, start), Duration::ZERO);
        assert!(rate.take(1.0, start) > Duration::ZERO);
    }
}
