//! Training curves as line charts in SVG.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::axis::Axis;
use super::number::{count, or_nan, short};
use super::text::{LIMIT, escape, headline};

/// One quantity over the steps of one part of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Chart {
    /// The step of the plan it belongs to, as in `dpo`.
    pub step: String,
    /// What is drawn, as in `loss`.
    pub title: String,
    /// What runs along the horizontal axis, as in `optimiser step`.
    pub x: String,
    /// What runs along the vertical axis, with its unit, as in `nats per token`.
    pub y: String,
    /// The lines; four can be told apart.
    pub series: Vec<Series>,
}

/// One line of a chart.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// What it is, as in `train` or `held out`.
    pub name: String,
    /// Its points, `at` rising.
    pub points: Vec<Point>,
}

/// One point of a line.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Where along the horizontal axis.
    pub at: f64,
    /// The value; NaN and infinite ones are counted, not drawn.
    #[serde(deserialize_with = "or_nan")]
    pub value: f64,
}

/// Where one series begins, ends and turns, for the table under its chart.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Summary {
    name: String,
    points: u64,
    left_out: u64,
    first: String,
    lowest: String,
    lowest_at: String,
    highest: String,
    highest_at: String,
    last: String,
}

/// The canvas, in its own units; text of 12 stays readable on a phone as the canvas is hardly wider than one.
const WIDTH: f64 = 440.0;
const HEIGHT: f64 = 230.0;
const LEFT: f64 = 46.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 40.0;

/// Buckets along a line; a longer one is drawn by the lowest and highest value of each.
const BUCKETS: usize = 120;
/// Lines up to this many points are drawn as they are, with a dot each.
const FEW: usize = 40;
/// Buckets on either side that the smoothed line averages over.
const REACH: usize = 3;

impl Chart {
    /// A chart without lines.
    pub fn new(
        step: impl Into<String>,
        title: impl Into<String>,
        x: impl Into<String>,
        y: impl Into<String>,
    ) -> Self {
        Chart { step: step.into(), title: title.into(), x: x.into(), y: y.into(), series: Vec::new() }
    }

    /// The same chart with one more line.
    #[must_use]
    pub fn line(mut self, name: impl Into<String>, points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        let points = points.into_iter().map(|(at, value)| Point { at, value }).collect();
        self.series.push(Series { name: name.into(), points });
        self
    }

    /// The chart as one `<svg>` element. `id` is unique in the page.
    pub(super) fn svg(&self, id: &str) -> String {
        let drawn: Vec<Vec<Point>> = self.series.iter().map(Series::finite).collect();
        let all = || drawn.iter().flatten();
        let x = Axis::over(all().map(|p| p.at), LEFT, WIDTH - RIGHT);
        let y = Axis::over(all().map(|p| p.value), HEIGHT - BOTTOM, TOP).padded(0.04);
        let mut svg = self.frame(id, &x, &y);
        if all().next().is_none() {
            let _ = write!(
                svg,
                r#"<text class="lb" x="{:.0}" y="{:.0}" text-anchor="middle">no finite values</text>"#,
                WIDTH / 2.0,
                HEIGHT / 2.0
            );
        }
        // Raw lines first, so that no smoothed one is hidden.
        for (line, points) in drawn.iter().enumerate() {
            if points.len() > FEW {
                let _ = write!(
                    svg,
                    r#"<path class="raw s{}" d="{}"/>"#,
                    line % 4,
                    path(&extremes(points), &x, &y)
                );
            }
        }
        for (line, points) in drawn.iter().enumerate() {
            let few = points.len() <= FEW;
            let bold = if few { points.clone() } else { smoothed(points) };
            let _ = write!(svg, r#"<path class="line s{}" d="{}"/>"#, line % 4, path(&bold, &x, &y));
            if few {
                for p in points {
                    let (cx, cy) = (x.at(p.at), y.at(p.value));
                    let _ = write!(
                        svg,
                        r#"<circle class="dot s{}" cx="{cx:.1}" cy="{cy:.1}" r="2.5"/>"#,
                        line % 4
                    );
                }
            }
        }
        svg += "</svg>";
        svg
    }

    /// Title, axes, grid and legend.
    fn frame(&self, id: &str, x: &Axis, y: &Axis) -> String {
        let mut svg = format!(
            r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="{id}-t {id}-d"><title id="{id}-t">{}</title><desc id="{id}-d">{}</desc>"#,
            safe(&format!("{}: {} over {}", self.step, self.title, self.x)),
            safe(&self.in_words())
        );
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for (value, label) in y.ticks(5) {
            let at = y.at(value);
            let _ = write!(
                svg,
                r#"<path class="grid" d="M{LEFT} {at:.1}H{right}"/><text class="tk" x="{:.0}" y="{:.1}" text-anchor="end">{label}</text>"#,
                LEFT - 6.0,
                at + 4.0
            );
        }
        for (value, label) in x.ticks(6) {
            let at = x.at(value);
            let _ = write!(
                svg,
                r#"<path class="axis" d="M{at:.1} {bottom}v4"/><text class="tk" x="{at:.1}" y="{:.0}" text-anchor="middle">{label}</text>"#,
                bottom + 17.0
            );
        }
        let _ = write!(
            svg,
            r#"<path class="axis" d="M{LEFT} {bottom}H{right}"/><text class="lb" x="{right}" y="{:.0}" text-anchor="end">{}</text><text class="lb" x="2" y="14">{}</text>"#,
            HEIGHT - 5.0,
            safe(&headline(&self.x, 40)),
            safe(&headline(&self.y, 30)),
        );
        // The legend stands right of the top line, last name outermost.
        let mut end = right;
        for (line, series) in self.series.iter().enumerate().rev().filter(|_| self.series.len() > 1) {
            let name = headline(&series.name, 14);
            end -= 7.4 * name.chars().count() as f64;
            let _ = write!(
                svg,
                r#"<text class="lb" x="{end:.0}" y="14">{}</text><path class="line s{}" d="M{:.0} 10h18"/>"#,
                safe(&name),
                line % 4,
                end - 24.0
            );
            end -= 36.0;
        }
        svg
    }

    /// What the chart shows, for those who do not see it.
    fn in_words(&self) -> String {
        let lines = self.summaries().into_iter().map(|s| match s.points {
            0 => format!("{}: nothing to draw", s.name),
            _ => {
                format!("{}: from {} to {}, lowest {} at {}", s.name, s.first, s.last, s.lowest, s.lowest_at)
            }
        });
        lines.collect::<Vec<_>>().join("; ")
    }

    /// The table under the chart.
    pub(super) fn summaries(&self) -> Vec<Summary> {
        self.series.iter().map(Series::summary).collect()
    }

    /// A line is long enough to be drawn raw and smoothed.
    pub(super) fn is_smoothed(&self) -> bool {
        self.series.iter().any(|series| series.finite().len() > FEW)
    }
}

impl Series {
    /// The points that can be drawn.
    fn finite(&self) -> Vec<Point> {
        self.points.iter().copied().filter(|p| p.at.is_finite() && p.value.is_finite()).collect()
    }

    fn summary(&self) -> Summary {
        let points = self.finite();
        let left_out = (self.points.len() - points.len()) as u64;
        let name = self.name.clone();
        let by_value = |a: &&Point, b: &&Point| a.value.total_cmp(&b.value);
        let (Some(first), Some(last)) = (points.first(), points.last()) else {
            return Summary { name, left_out, ..Summary::default() };
        };
        let (low, high) = (points.iter().min_by(by_value), points.iter().max_by(by_value));
        let (low, high) = (low.unwrap_or(first), high.unwrap_or(first));
        Summary {
            name,
            points: points.len() as u64,
            left_out,
            first: short(first.value),
            lowest: short(low.value),
            lowest_at: place(low.at),
            highest: short(high.value),
            highest_at: place(high.at),
            last: short(last.value),
        }
    }
}

fn safe(text: &str) -> String {
    escape(text, LIMIT).0
}

/// A place along the axis: whole where it is a step number.
fn place(at: f64) -> String {
    if at >= 0.0 && at.fract() == 0.0 && at < 1e15 { count(at as u64) } else { short(at) }
}

/// The lowest and the highest point of each bucket, in their order: spikes survive, and few points are drawn.
fn extremes(points: &[Point]) -> Vec<Point> {
    if points.len() <= 2 * BUCKETS {
        return points.to_vec();
    }
    let mut out = Vec::with_capacity(2 * BUCKETS);
    for bucket in buckets(points) {
        let index = |best: fn(&(usize, &Point), &(usize, &Point)) -> std::cmp::Ordering| {
            bucket.iter().enumerate().min_by(&best).map(|(at, _)| at)
        };
        let low = index(|a, b| a.1.value.total_cmp(&b.1.value));
        let high = index(|a, b| b.1.value.total_cmp(&a.1.value));
        let (Some(low), Some(high)) = (low, high) else { continue };
        out.push(bucket[low.min(high)]);
        if low != high {
            out.push(bucket[low.max(high)]);
        }
    }
    out
}

/// The mean of each bucket, averaged over [`REACH`] neighbours on either side, as many as there are on both.
fn smoothed(points: &[Point]) -> Vec<Point> {
    let means: Vec<Point> = buckets(points)
        .map(|bucket| {
            let n = bucket.len() as f64;
            // Divided first: a sum of large values overflows.
            let mean = |of: fn(&Point) -> f64| bucket.iter().map(|p| of(p) / n).sum();
            Point { at: mean(|p| p.at), value: mean(|p| p.value) }
        })
        .collect();
    (0..means.len())
        .map(|k| {
            // The same reach on both sides, or the ends would lean on the side that has neighbours.
            let reach = REACH.min(k).min(means.len() - 1 - k);
            let near = &means[k - reach..=k + reach];
            let n = near.len() as f64;
            Point { at: means[k].at, value: near.iter().map(|p| p.value / n).sum() }
        })
        .collect()
}

/// At most [`BUCKETS`] runs of nearly equal length.
fn buckets(points: &[Point]) -> impl Iterator<Item = &[Point]> {
    let n = points.len().min(BUCKETS);
    (0..n).map(move |k| &points[k * points.len() / n..(k + 1) * points.len() / n])
}

/// The line through `points` as path data.
fn path(points: &[Point], x: &Axis, y: &Axis) -> String {
    let mut out = String::with_capacity(12 * points.len());
    for (k, p) in points.iter().enumerate() {
        let _ = write!(out, "{}{:.1} {:.1}", if k == 0 { 'M' } else { 'L' }, x.at(p.at), y.at(p.value));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(values: &[f64]) -> Vec<Point> {
        values.iter().enumerate().map(|(k, value)| Point { at: k as f64, value: *value }).collect()
    }

    #[test]
    fn points_lie_where_arithmetic_puts_them() {
        // x: 0 → 46, 2 → 428, so 1 → 237. y: 0 to 10 over 190 to 30, padded by 4 % of the span on both sides:
        // −0.4 to 10.4 over 160 units. 0 → 190 − 0.4/10.8·160 = 184.07, 10 → 35.93, 5 → 110.
        let svg = Chart::new("dpo", "loss", "step", "nats")
            .line("train", [(0.0, 0.0), (1.0, 10.0), (2.0, 5.0)])
            .svg("c");
        assert!(svg.contains(r#"d="M46.0 184.1L237.0 35.9L428.0 110.0""#), "{svg}");
        assert_eq!(svg.matches("<circle").count(), 3);
    }

    #[test]
    fn long_lines_keep_their_spikes() {
        let mut values = vec![1.0; 10_000];
        values[5_003] = 99.0;
        values[7_001] = -99.0;
        let raw = extremes(&points(&values));
        assert!(raw.len() <= 2 * BUCKETS, "{}", raw.len());
        for spike in [Point { at: 5003.0, value: 99.0 }, Point { at: 7001.0, value: -99.0 }] {
            assert!(raw.contains(&spike));
        }
        assert!(raw.windows(2).all(|pair| pair[0].at < pair[1].at));
    }

    #[test]
    fn smoothing_averages_neighbours() {
        // 120 points, one per bucket; a single 7 at 60 gives 7/7 = 1 to itself and its three neighbours either side.
        let mut values = vec![0.0; BUCKETS];
        values[60] = 7.0;
        let smooth = smoothed(&points(&values));
        let lifted: Vec<usize> = (0..BUCKETS).filter(|k| (smooth[*k].value - 1.0).abs() < 1e-12).collect();
        assert_eq!(lifted, [57, 58, 59, 60, 61, 62, 63]);
        // The ends lean on nobody.
        values[0] = 3.0;
        assert_eq!(smoothed(&points(&values))[0].value, 3.0);
    }

    #[test]
    fn odd_lines_are_drawn_or_left_out() {
        for values in
            [vec![], vec![1.0], vec![f64::NAN, f64::INFINITY], vec![f64::MAX, f64::MIN, 0.0], vec![2.0; 500]]
        {
            let chart = Chart::new("s", "loss", "step", "nats")
                .line("a", points(&values).iter().map(|p| (p.at, p.value)));
            let svg = chart.svg("c");
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{values:?}: {svg}");
            assert!(svg.ends_with("</svg>"));
        }
        let chart = Chart::new("s", "loss", "step", "nats").line("a", [(0.0, f64::NAN), (1.0, 2.0)]);
        assert_eq!((chart.summaries()[0].points, chart.summaries()[0].left_out), (1, 1));
    }

    #[test]
    fn the_table_holds_the_turning_points() {
        let chart =
            Chart::new("s", "loss", "step", "nats").line("a", [(0.0, 2.5), (10.0, 0.5), (20.0, 1.25)]);
        let s = &chart.summaries()[0];
        assert_eq!(
            [&s.first, &s.lowest, &s.lowest_at, &s.highest, &s.highest_at, &s.last],
            ["2.5", "0.5", "10", "2.5", "0", "1.25"]
        );
    }

    #[test]
    fn names_are_escaped() {
        let svg = Chart::new("<s>", "<t>", "<x>", "<y>")
            .line("<a>", [(0.0, 1.0)])
            .line("<b>", [(0.0, 1.0)])
            .svg("c");
        assert!(!["<s>", "<t>", "<x>", "<y>", "<a>", "<b>"].iter().any(|tag| svg.contains(tag)), "{svg}");
    }
}
