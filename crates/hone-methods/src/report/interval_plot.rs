//! One measure drawn: start, result and baselines on one scale, each with its interval.

use std::fmt::Write;

use super::axis::Axis;
use super::outcome::{Estimate, Measure};
use super::text::{LIMIT, escape, headline};

/// The canvas, in its own units: as wide as a chart, so that text is of one size on a page.
const WIDTH: f64 = 440.0;
const LEFT: f64 = 118.0;
const RIGHT: f64 = 16.0;
const ROW: f64 = 24.0;

impl Measure {
    /// The measure as one `<svg>` element: a row each for result, start and baselines. `id` is unique in the page.
    pub(super) fn svg(&self, id: &str) -> String {
        let named = |name: &'static str, class, estimate| (name.to_owned(), class, estimate);
        let mut rows = vec![named("result", "res", &self.result), named("start", "sta", &self.start)];
        rows.extend(self.baselines.iter().map(|b| (headline(&b.name, 16), "bas", &b.estimate)));
        let scale = self.scale();
        let values = rows.iter().flat_map(|(_, _, e)| {
            let [low, high] = e.ends().unwrap_or([e.value, e.value]);
            [e.value, low, high].map(|v| scale * v)
        });
        let axis = Axis::over(values, LEFT, WIDTH - RIGHT).padded(0.05);
        let bottom = 6.0 + ROW * rows.len() as f64;
        let words = |text: &str| escape(text, LIMIT).0;
        let mut svg = format!(
            r#"<svg viewBox="0 0 {WIDTH} {:.0}" role="img" aria-labelledby="{id}-t {id}-d"><title id="{id}-t">{}</title><desc id="{id}-d">{}</desc>"#,
            bottom + 24.0,
            words(&format!("{}: start against result", self.name)),
            words(&rows.iter().map(|(name, _, e)| self.row_in_words(name, e)).collect::<Vec<_>>().join("; ")),
        );
        for (value, label) in axis.ticks(5) {
            let at = axis.at(value);
            let _ = write!(
                svg,
                r#"<path class="grid" d="M{at:.1} 4V{bottom:.0}"/><text class="tk" x="{at:.1}" y="{:.0}" text-anchor="middle">{label}</text>"#,
                bottom + 16.0
            );
        }
        for (k, (name, class, estimate)) in rows.iter().enumerate() {
            let y = 6.0 + ROW * (k as f64 + 0.5);
            let _ = write!(
                svg,
                r#"<text class="lb" x="{:.0}" y="{:.0}" text-anchor="end">{}</text>"#,
                LEFT - 10.0,
                y + 4.0,
                words(name)
            );
            if let Some([low, high]) = estimate.ends() {
                let (low, high) = (axis.at(scale * low), axis.at(scale * high));
                let _ = write!(
                    svg,
                    r#"<path class="bar {class}" d="M{low:.1} {y}H{high:.1}M{low:.1} {:.0}v8M{high:.1} {:.0}v8"/>"#,
                    y - 4.0,
                    y - 4.0
                );
            }
            if estimate.value.is_finite() {
                let x = axis.at(scale * estimate.value);
                let _ = match *class {
                    // A baseline is a diamond: told from the others without colour.
                    "bas" => write!(svg, r#"<path class="mark bas" d="M{:.1} {y}l5 5 5-5-5-5z"/>"#, x - 5.0),
                    _ => write!(svg, r#"<circle class="mark {class}" cx="{x:.1}" cy="{y}" r="5"/>"#),
                };
            }
        }
        svg += "</svg>";
        svg
    }

    fn row_in_words(&self, name: &str, estimate: &Estimate) -> String {
        let value = self.shown(estimate, false);
        match self.shown_interval(estimate, false) {
            Some(ends) => format!("{name} {value} ({ends})"),
            None => format!("{name} {value}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::outcome::{Better, Unit};

    #[test]
    fn marks_lie_where_arithmetic_puts_them() {
        let ends = [Estimate::between(20.0, 10.0, 30.0), Estimate::of(90.0), Estimate::of(70.0)];
        let measure =
            Measure::new("m", Unit::Bare, Better::Higher, 5, ends).baseline("b", Estimate::of(50.0));
        // 10 to 90, padded by 4 on both sides: 6 to 94 over 118 to 424. 90 → 118 + 84/88·306 = 410.1,
        // 20 → 166.7, 50 → 271.0, less 5 for the diamond's left corner.
        let svg = measure.svg("i");
        assert!(svg.contains(r#"<circle class="mark res" cx="410.1" cy="18" r="5"/>"#), "{svg}");
        assert!(svg.contains(r#"<circle class="mark sta" cx="166.7" cy="42" r="5"/>"#), "{svg}");
        assert!(svg.contains(r#"d="M266.0 66l5 5 5-5-5-5z""#), "{svg}");
        // 10 → 131.9, 30 → 201.5.
        assert!(svg.contains(r#"d="M131.9 42H201.5M131.9 38v8M201.5 38v8""#), "{svg}");
    }

    #[test]
    fn what_was_not_measured_has_no_mark() {
        let nothing = Estimate::between(f64::NAN, f64::NAN, f64::INFINITY);
        let svg = Measure::new("m", Unit::Share, Better::Higher, 0, [nothing; 3]).svg("i");
        assert!(!svg.contains("<circle") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
