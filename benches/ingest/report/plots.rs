//! The plots: what is drawn where. How a line looks is told in `svg`.

use super::svg::{Anchor, Svg};
use super::{Closed, Open, Peers, Report, Side};
use crate::rig::numbers::{count, thousands};

pub(super) const THROUGHPUT: &str = "throughput.svg";
pub(super) const LATENCY: &str = "latency.svg";
pub(super) const PEERS: &str = "peers.svg";

const WIDTH: f64 = 760.0;

/// File name and drawing of every plot that the run has figures for.
pub(super) fn all(report: &Report) -> Vec<(&'static str, String)> {
    let mut plots = Vec::new();
    if !report.closed.is_empty() {
        plots.push((THROUGHPUT, throughput(&report.closed)));
    }
    if !report.open.is_empty() {
        plots.push((LATENCY, latency(&report.open)));
    }
    plots.extend(report.peers.as_ref().map(|found| (PEERS, peers(found))));
    plots
}

/// The rectangle that values are drawn in.
#[derive(Debug, Clone, Copy)]
struct Area {
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

impl Area {
    /// The point at these shares of width and height, counted from the lower left.
    fn at(&self, x: f64, y: f64) -> (f64, f64) {
        (
            self.left + x * (self.right - self.left),
            self.bottom - y * (self.bottom - self.top),
        )
    }

    /// A horizontal line with its value at the left.
    fn grid(&self, svg: &mut Svg, y: f64, label: &str) {
        let (left, height) = self.at(0.0, y);
        let class = if y == 0.0 { "axis" } else { "grid" };
        svg.line((left, height), (self.right, height), class);
        svg.text((left - 8.0, height + 4.0), Anchor::End, "faint", label);
    }
}

/// Pairs of bars by connections.
fn throughput(closed: &[Closed]) -> String {
    let mut svg = Svg::new(WIDTH, 400.0, "Callbacks acknowledged a second, closed loop");
    let area = Area {
        left: 72.0,
        right: WIDTH - 20.0,
        top: 108.0,
        bottom: 318.0,
    };
    svg.text(
        (16.0, 50.0),
        Anchor::Start,
        "faint",
        "callbacks/s; more is better",
    );
    key(&mut svg, 0.0, "ours", "reelhook, on disk before the answer");
    key(&mut svg, 270.0, "ceiling", "ceiling: same HTTP stack, no storage");
    let sides = |closed: &Closed| [closed.pair.reelhook.per_second, closed.pair.ceiling.per_second];
    let scale = linear(closed.iter().flat_map(sides));
    for value in &scale.values {
        area.grid(&mut svg, value / scale.most, &thousands(*value));
    }
    let width = 1.0 / count(closed.len());
    for (place, closed) in closed.iter().enumerate() {
        let middle = (count(place) + 0.5) * width;
        let bars = [
            ("ours", -1.0, sides(closed)[0]),
            ("ceiling", 1.0, sides(closed)[1]),
        ];
        for (class, side, value) in bars {
            let bar = (area.right - area.left) * width * 0.34;
            let (x, y) = area.at(middle, value / scale.most);
            let left = if side < 0.0 { x - bar - 1.0 } else { x + 1.0 };
            svg.bar((left, y), (bar, area.bottom - y), class);
            let label = if class == "ours" { "strong" } else { "" };
            svg.text(
                (left + bar / 2.0, y - 6.0),
                Anchor::Middle,
                label,
                thousands(value),
            );
        }
        let (x, _) = area.at(middle, 0.0);
        let ratio = format!("ratio {:.2}", closed.pair.ratio());
        svg.text((x, area.bottom + 20.0), Anchor::Middle, "", closed.connections);
        svg.text((x, area.bottom + 42.0), Anchor::Middle, "strong", ratio);
    }
    let (middle, _) = area.at(0.5, 0.0);
    svg.text(
        (middle, area.bottom + 68.0),
        Anchor::Middle,
        "faint",
        "connections",
    );
    svg.finish()
}

/// A square and what it stands for, below the title.
fn key(svg: &mut Svg, offset: f64, class: &str, text: &str) {
    svg.bar((16.0 + offset, 62.0), (12.0, 12.0), class);
    svg.text((34.0 + offset, 73.0), Anchor::Start, "", text);
}

/// Class and name of a percentile, and where a side has it.
type Percentile = (&'static str, &'static str, fn(&Side) -> u32);

const PERCENTILES: [Percentile; 3] = [
    ("p50", "p50", |side| side.p50_us),
    ("p99", "p99", |side| side.p99_us),
    ("p999", "p99.9", |side| side.p999_us),
];

/// Class of a server, and its side of a pair.
type Server = (&'static str, fn(&Open) -> &Side);

const SERVERS: [Server; 2] = [
    ("ceiling", |open| &open.pair.ceiling),
    ("ours", |open| &open.pair.reelhook),
];

/// Lines by rate, the percentiles told apart by their dashes; latencies on a logarithmic scale.
fn latency(open: &[Open]) -> String {
    let mut open: Vec<&Open> = open.iter().collect();
    open.sort_by_key(|open| open.per_second);
    let mut svg = Svg::new(WIDTH, 440.0, "Latency at a fixed rate, open loop");
    let area = Area {
        left: 72.0,
        right: WIDTH - 130.0,
        top: 100.0,
        bottom: 376.0,
    };
    svg.text(
        (16.0, 50.0),
        Anchor::Start,
        "faint",
        "milliseconds from the instant a callback was due; less is better",
    );
    key(&mut svg, 0.0, "ours", "reelhook, on disk before the answer");
    key(&mut svg, 270.0, "ceiling", "ceiling: same HTTP stack, no storage");
    let sides = || {
        open.iter()
            .flat_map(|open| [&open.pair.reelhook, &open.pair.ceiling])
    };
    let all = sides().flat_map(|side| PERCENTILES.map(|(_, _, value)| value(side)));
    let decades = Decades::around(all);
    for (value, label) in decades.lines() {
        area.grid(&mut svg, decades.place(value), &label);
    }
    let most = open.last().map_or(1.0, |open| f64::from(open.per_second)) * 1.02;
    rates(&mut svg, area, &open, most);
    let mut labels = Vec::new();
    for (class, side) in SERVERS {
        for (dash, name, value) in PERCENTILES {
            let points = open.iter().map(|open| {
                let us = f64::from(value(side(open)));
                area.at(f64::from(open.per_second) / most, decades.place(us))
            });
            let points: Vec<_> = points.collect();
            svg.polyline(&points, &format!("{class} {dash}"));
            for &point in &points {
                svg.circle(point, class);
            }
            labels.extend(points.last().map(|&(x, y)| Label { x, y, class, name }));
        }
    }
    write_labels(&mut svg, labels);
    svg.finish()
}

/// The axis of the rates that were tried, up to `most`.
fn rates(svg: &mut Svg, area: Area, open: &[&Open], most: f64) {
    let mut last_label = f64::MIN;
    for open in open {
        let rate = f64::from(open.per_second);
        let (x, bottom) = area.at(rate / most, 0.0);
        svg.line((x, bottom), (x, bottom + 5.0), "axis");
        // Rates close to each other would print over each other.
        if x - last_label > 56.0 {
            svg.text((x, bottom + 20.0), Anchor::Middle, "", thousands(rate));
            last_label = x;
        }
    }
    let (middle, bottom) = area.at(0.5, 0.0);
    svg.line(area.at(0.0, 0.0), area.at(1.0, 0.0), "axis");
    svg.text(
        (middle, bottom + 46.0),
        Anchor::Middle,
        "faint",
        "callbacks a second",
    );
}

/// The name of a line at its right end.
struct Label {
    x: f64,
    y: f64,
    class: &'static str,
    name: &'static str,
}

/// Writes them from top to bottom, far enough from one another to be read.
fn write_labels(svg: &mut Svg, mut labels: Vec<Label>) {
    labels.sort_by(|one, other| one.y.total_cmp(&other.y));
    let mut free = f64::MIN;
    for Label { x, y, class, name } in labels {
        let place = y.max(free);
        let server = if class == "ours" { "reelhook" } else { "ceiling" };
        svg.text(
            (x + 12.0, place + 4.0),
            Anchor::Start,
            class,
            format!("{server} {name}"),
        );
        free = place + 16.0;
    }
}

/// Bars from left to right, the fastest on top; grey are those that keep nothing.
fn peers(peers: &Peers) -> String {
    let ours = ("reelhook", "ours", "delivery, task, file queue", &peers.reelhook);
    let ceiling = ("ceiling", "ceiling", "nothing", &peers.ceiling);
    let mut bars = vec![ours, ceiling];
    bars.extend(peers.others.iter().map(|peer| {
        (
            peer.name.as_str(),
            if peer.checked { "other" } else { "ceiling" },
            peer.keeps.as_str(),
            &peer.side,
        )
    }));
    bars.sort_by(|one, other| other.3.per_second.total_cmp(&one.3.per_second));
    let rows = count(bars.len());
    let mut svg = Svg::new(
        WIDTH,
        92.0 + rows * 48.0,
        "Callbacks acknowledged a second, beside other receivers",
    );
    svg.text(
        (16.0, 50.0),
        Anchor::Start,
        "faint",
        "callbacks/s at 64 connections; more is better; grey: nothing is kept",
    );
    let area = Area {
        left: 240.0,
        right: WIDTH - 80.0,
        top: 72.0,
        bottom: 72.0 + rows * 48.0,
    };
    let most = bars.first().map_or(1.0, |bar| bar.3.per_second);
    for (place, (name, class, keeps, side)) in bars.into_iter().enumerate() {
        let top = area.top + count(place) * 48.0;
        let label = if class == "ours" { "strong" } else { "" };
        svg.text((area.left - 12.0, top + 16.0), Anchor::End, label, name);
        svg.text(
            (area.left - 12.0, top + 33.0),
            Anchor::End,
            "faint",
            format!("keeps: {keeps}"),
        );
        let width = (side.per_second / most * (area.right - area.left)).max(1.0);
        svg.bar((area.left, top + 6.0), (width, 26.0), class);
        let value = thousands(side.per_second);
        svg.text((area.left + width + 8.0, top + 24.0), Anchor::Start, label, value);
    }
    svg.line((area.left, area.top), (area.left, area.bottom), "axis");
    svg.finish()
}

/// Round values from 0 on, and the one that the whole height stands for.
struct Linear {
    values: Vec<f64>,
    most: f64,
}

/// Four or five lines for these values.
fn linear(values: impl Iterator<Item = f64>) -> Linear {
    let most = values.fold(1.0, f64::max);
    let rough = most / 4.0;
    let magnitude = 10f64.powf(rough.log10().floor());
    let steps = [1.0, 2.0, 2.5, 5.0, 10.0].map(|step| step * magnitude);
    let step = steps.into_iter().find(|step| *step >= rough).unwrap_or(rough);
    let values: Vec<_> = (0..=5)
        .map(|place| f64::from(place) * step)
        .take_while(|value| *value <= most * 1.001)
        .collect();
    Linear { values, most }
}

/// A logarithmic scale of microseconds, labelled in milliseconds.
struct Decades {
    lowest: f64,
    highest: f64,
}

impl Decades {
    /// Around all values, with some room.
    fn around(values: impl Iterator<Item = u32>) -> Self {
        let (lowest, highest) = values.fold((f64::MAX, 0.0), |(lowest, highest): (f64, f64), value| {
            let value = f64::from(value.max(1));
            (lowest.min(value), highest.max(value))
        });
        Self {
            lowest: (lowest * 0.8).log10(),
            highest: (highest * 1.2).log10(),
        }
    }

    /// The share of the height.
    fn place(&self, us: f64) -> f64 {
        (us.max(1.0).log10() - self.lowest) / (self.highest - self.lowest)
    }

    /// 1, 2 and 5 of every decade within, each with its label.
    fn lines(&self) -> Vec<(f64, String)> {
        let mut lines = Vec::new();
        for decade in 0..8 {
            for step in [1.0, 2.0, 5.0] {
                let us: f64 = step * 10f64.powi(decade);
                if (self.lowest..=self.highest).contains(&us.log10()) {
                    lines.push((us, format!("{} ms", us / 1000.0)));
                }
            }
        }
        lines
    }
}
