//! Just enough SVG for three plots: a crate that draws plots brings fonts and fixed colours, and these have to look right
//! on light and on dark pages alike.

use std::fmt::{Display, Write as _};

/// Colours by what they stand for, in both schemes. The page behind shows through.
const STYLE: &str = "\
text { font: 13px system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif; fill: #3b4350 }
.title { font-size: 16px; font-weight: 600; fill: #1b212b }
.faint { fill: #667080; font-size: 12px }
.strong { font-weight: 600; fill: #1b212b }
.grid { stroke: #dde1e7; stroke-width: 1 }
.axis { stroke: #8b94a1; stroke-width: 1 }
.ours { fill: #1f6fd6 }
.ceiling { fill: #9aa3af }
.other { fill: #d0854a }
polyline.ours { stroke: #1f6fd6 }
polyline.ceiling { stroke: #7d8794 }
text.ours { fill: #1f6fd6; font-weight: 600 }
text.ceiling { fill: #667080; font-weight: 600 }
polyline.line { fill: none !important; stroke-width: 2; stroke-linejoin: round }
.p99 { stroke-dasharray: 7 4 }
.p999 { stroke-dasharray: 2 4 }
@media (prefers-color-scheme: dark) {
text { fill: #c3cad5 }
.title, .strong { fill: #eef1f6 }
.faint { fill: #98a2b1 }
.grid { stroke: #363d49 }
.axis { stroke: #6d7785 }
.ours { fill: #5aa2ff }
.ceiling { fill: #77818f }
.other { fill: #dd9a63 }
polyline.ours { stroke: #5aa2ff }
polyline.ceiling { stroke: #98a2b1 }
text.ours { fill: #5aa2ff }
text.ceiling { fill: #98a2b1 }
}
";

/// A drawing in the making.
pub(super) struct Svg {
    size: (f64, f64),
    shapes: String,
    title: &'static str,
}

/// Where a text ends up around its point.
#[derive(Debug, Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

impl Svg {
    /// An empty one; the title is drawn, and read out.
    pub(super) fn new(width: f64, height: f64, title: &'static str) -> Self {
        let mut svg = Self {
            size: (width, height),
            shapes: String::new(),
            title,
        };
        svg.text((16.0, 28.0), Anchor::Start, "title", title);
        svg
    }

    pub(super) fn text(&mut self, (x, y): (f64, f64), anchor: Anchor, class: &str, text: impl Display) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = escaped(&text.to_string());
        let _ = writeln!(
            self.shapes,
            r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" class="{class}">{text}</text>"#
        );
    }

    pub(super) fn line(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64), class: &str) {
        let _ = writeln!(
            self.shapes,
            r#"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" class="{class}"/>"#
        );
    }

    pub(super) fn polyline(&mut self, points: &[(f64, f64)], class: &str) {
        let points: Vec<_> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let points = points.join(" ");
        let _ = writeln!(
            self.shapes,
            r#"<polyline points="{points}" class="line {class}"/>"#
        );
    }

    pub(super) fn circle(&mut self, (x, y): (f64, f64), class: &str) {
        let _ = writeln!(
            self.shapes,
            r#"<circle cx="{x:.1}" cy="{y:.1}" r="3.5" class="{class}"/>"#
        );
    }

    pub(super) fn bar(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), class: &str) {
        let _ = writeln!(
            self.shapes,
            r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" rx="2" class="{class}"/>"#
        );
    }

    pub(super) fn finish(self) -> String {
        let (width, height) = self.size;
        let (title, shapes) = (escaped(self.title), self.shapes);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
             height=\"{height}\" role=\"img\" aria-label=\"{title}\">\n<style>\n{STYLE}</style>\n{shapes}</svg>\n"
        )
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('"', "&quot;")
}
