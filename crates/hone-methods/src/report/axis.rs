//! Scales and ticks of drawings.

use super::number::fixed;

/// A linear scale from data to the canvas.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Axis {
    /// Lowest value shown.
    pub low: f64,
    /// Highest value shown; above `low`.
    pub high: f64,
    /// Where `low` lies on the canvas.
    pub from: f64,
    /// Where `high` lies.
    pub to: f64,
}

impl Axis {
    /// A scale that holds all finite `values`. What is a single value gets room on both sides; nothing gives 0 to 1.
    pub fn over(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let finite = values.filter(|value| value.is_finite());
        let (low, high) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        let (low, high) = match () {
            () if low > high => (0.0, 1.0),
            () if high - low > 1e-12 * high.abs().max(low.abs()) => (low, high),
            () => {
                let room = if low == 0.0 { 1.0 } else { 0.1 * low.abs() };
                (low - room, high + room)
            }
        };
        // Ends near the largest f64 would leave an infinite span.
        Axis { low: low.max(-1e300), high: high.min(1e300), from, to }
    }

    /// The same scale with `share` of its span more on both sides.
    pub fn padded(self, share: f64) -> Self {
        let room = share * (self.high - self.low);
        Axis { low: self.low - room, high: self.high + room, ..self }
    }

    /// Where `value` lies on the canvas; what lies outside of the scale stands at its end.
    pub fn at(&self, value: f64) -> f64 {
        let value = value.clamp(self.low, self.high);
        self.from + (value - self.low) / (self.high - self.low) * (self.to - self.from)
    }

    /// Round values inside the scale, at most `most` of them, with their labels.
    pub fn ticks(&self, most: usize) -> Vec<(f64, String)> {
        let rough = (self.high - self.low) / most.max(1) as f64;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|s| *s >= rough * (1.0 - 1e-9));
        let Some(step) = step.filter(|step| step.is_normal()) else { return Vec::new() };
        let first = (self.low / step - 1e-9).ceil();
        (0..=most)
            .map(|k| (first + k as f64) * step)
            .take_while(|value| *value <= self.high + 1e-9 * step)
            .map(|value| (value, label(value, step)))
            .collect()
    }
}

/// A tick's label, in as many places as its step needs.
fn label(value: f64, step: f64) -> String {
    let value = if value.abs() < 1e-9 * step { 0.0 } else { value };
    let size = value.abs().max(step);
    if !(1e-4..1e15).contains(&step) || size >= 1e15 {
        return super::number::short(value);
    }
    for (unit, name) in [(1e9, "G"), (1e6, "M"), (1e3, "k")] {
        // `20k` where no digit is lost by it.
        if size >= 10.0 * unit && (step / unit * 10.0).fract().abs() < 1e-9 {
            return if value == 0.0 { "0".into() } else { format!("{}{name}", trimmed(value / unit)) };
        }
    }
    fixed(value, (-step.log10().floor()).max(0.0) as usize)
}

fn trimmed(value: f64) -> String {
    let text = fixed(value, 1);
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(low: f64, high: f64, most: usize) -> Vec<String> {
        Axis { low, high, from: 0.0, to: 1.0 }.ticks(most).into_iter().map(|(_, label)| label).collect()
    }

    #[test]
    fn points_lie_where_arithmetic_puts_them() {
        // 3 lies a quarter of the way from 2 to 6, and a quarter of the way from 100 to 20 is 80.
        let axis = Axis::over([6.0, 2.0, f64::NAN].into_iter(), 100.0, 20.0);
        assert_eq!((axis.low, axis.high, axis.at(3.0)), (2.0, 6.0, 80.0));
        assert_eq!(axis.padded(0.5).low, 0.0);
    }

    #[test]
    fn ticks_are_round() {
        // A span of 1 in at most 5 parts: 0.2 each.
        assert_eq!(labels(0.0, 1.0, 5), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        // 13 / 5 = 2.6, so 5: within 1 to 14 lie 5 and 10.
        assert_eq!(labels(1.0, 14.0, 5), ["5", "10"]);
        assert_eq!(labels(-0.3, 0.3, 4), ["−0.2", "0.0", "0.2"]);
        assert_eq!(labels(0.0, 50_000.0, 5), ["0", "10k", "20k", "30k", "40k", "50k"]);
        assert_eq!(labels(0.0, 2e-5, 2), ["0", "1e−5", "2e−5"]);
    }

    #[test]
    fn odd_data_has_an_axis_too() {
        assert_eq!(Axis::over(std::iter::empty(), 0.0, 1.0).high, 1.0);
        let one = Axis::over([4.0].into_iter(), 0.0, 1.0);
        assert_eq!((one.low, one.high), (3.6, 4.4));
        let zero = Axis::over([0.0, 0.0].into_iter(), 0.0, 1.0);
        assert_eq!((zero.low, zero.high), (-1.0, 1.0));
        let wild = Axis::over([f64::MAX, f64::MIN, f64::INFINITY].into_iter(), 0.0, 1.0);
        assert!(wild.at(0.0).is_finite());
        assert!(wild.ticks(5).len() <= 6);
    }
}
