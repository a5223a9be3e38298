//! Small charts of the last hour: a column a minute, drawn here, with what they show in words.

use std::fmt::{self, Write as _};

use askama::filters::HtmlSafe;

/// Units of the drawing: four a minute, of which one is left empty.
const STEP: usize = 4;
const HEIGHT: u64 = 48;

/// A chart. Its columns may be of several layers, one upon the other.
#[derive(Debug)]
pub(super) struct Spark {
    /// What it is about; the words of our own code only, as they are not escaped.
    pub(super) title: &'static str,
    /// What it shows, in words and numbers of ours.
    pub(super) told: String,
    /// From the bottom: the class of their colour, and a number for each minute.
    pub(super) layers: Vec<(&'static str, Vec<u64>)>,
}

impl HtmlSafe for Spark {}

impl fmt::Display for Spark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let minutes = self
            .layers
            .iter()
            .map(|(_, counts)| counts.len())
            .max()
            .unwrap_or(0);
        let totals = (0..minutes).map(|minute| self.up_to(self.layers.len(), minute));
        let highest = totals.max().unwrap_or(0).max(1);
        let width = minutes * STEP;
        write!(
            f,
            r#"<svg class="spark" role="img" viewBox="0 0 {width} {HEIGHT}" preserveAspectRatio="none" aria-label="{}: {}">"#,
            self.title, self.told
        )?;
        write!(f, "<title>{}: {}</title>", self.title, self.told)?;
        for (layer, (class, _)) in self.layers.iter().enumerate() {
            let columns = self.columns(layer, minutes, highest);
            write!(f, r#"<path class="{class}" d="{columns}"/>"#)?;
        }
        write!(f, r#"<path class="axis" d="M0 {HEIGHT}h{width}"/></svg>"#)
    }
}

impl Spark {
    /// The layers below one, together.
    fn up_to(&self, layer: usize, minute: usize) -> u64 {
        let counts = self.layers[..layer].iter();
        counts
            .map(|(_, counts)| counts.get(minute).copied().unwrap_or(0))
            .sum()
    }

    fn columns(&self, layer: usize, minutes: usize, highest: u64) -> String {
        let mut path = String::new();
        for minute in 0..minutes {
            let (low, high) = (self.up_to(layer, minute), self.up_to(layer + 1, minute));
            if high == low {
                continue;
            }
            let y = |count: u64| HEIGHT - scaled(count, highest);
            // One among very many is still seen.
            let (top, bottom) = (y(high).min(HEIGHT - 1), y(low));
            let tall = bottom.saturating_sub(top).max(1);
            let _ = write!(
                path,
                "M{} {top}h{}v{tall}h-{}z",
                minute * STEP,
                STEP - 1,
                STEP - 1
            );
        }
        path
    }
}

fn scaled(count: u64, highest: u64) -> u64 {
    let scaled = u128::from(count) * u128::from(HEIGHT) / u128::from(highest);
    u64::try_from(scaled).unwrap_or(HEIGHT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(layers: Vec<(&'static str, Vec<u64>)>) -> String {
        let spark = Spark {
            title: "Callbacks",
            told: "2 in the last hour".to_owned(),
            layers,
        };
        spark.to_string()
    }

    #[test]
    fn columns_stand_on_each_other_and_fill_the_height() {
        let svg = drawn(vec![("good", vec![0, 1, 3]), ("bad", vec![0, 0, 1])]);
        assert!(
            svg.contains(r#"<path class="good" d="M4 36h3v12h-3zM8 12h3v36h-3z"/>"#),
            "{svg}"
        );
        assert!(svg.contains(r#"<path class="bad" d="M8 0h3v12h-3z"/>"#), "{svg}");
        assert!(
            svg.contains(r#"viewBox="0 0 12 48""#) && svg.contains("2 in the last hour"),
            "{svg}"
        );
    }

    #[test]
    fn nothing_draws_nothing_and_much_does_not_overflow() {
        assert!(drawn(vec![("good", vec![0; 60])]).contains(r#"<path class="good" d=""/>"#));
        assert!(drawn(vec![("good", vec![u64::MAX / 2, 1])]).contains("M0 0h3v48h-3zM4 47h3v1h-3z"));
    }
}
