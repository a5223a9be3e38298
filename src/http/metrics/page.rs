//! A page of metrics, in the text format of `OpenMetrics`.

use std::fmt;
use std::sync::Mutex;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use crate::telemetry::Distribution;

/// What a metric is: its name as it is exported, and one sentence.
pub(super) type About = (&'static str, &'static str);

/// Names and values of labels.
pub(super) type Labels<'l> = &'l [(&'static str, &'l str)];

/// Being written.
pub(super) struct Page<'e> {
    encoder: DescriptorEncoder<'e>,
}

/// The text of what `write` writes.
pub(super) fn text(
    write: impl Fn(&mut Page<'_>) -> fmt::Result + Send + 'static,
) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Written(Mutex::new(write))));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

/// The registry wants what may be shared between threads; nobody else has it.
struct Written<W>(Mutex<W>);

impl<W> fmt::Debug for Written<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Written")
    }
}

impl<W: Fn(&mut Page<'_>) -> fmt::Result + Send + 'static> Collector for Written<W> {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let write = self.0.lock().map_err(|_| fmt::Error)?;
        write(&mut Page { encoder })
    }
}

impl Page<'_> {
    /// A count that only grows.
    pub(super) fn counter(&mut self, about: About, value: impl EncodeCounterValue) -> fmt::Result {
        self.counters(about, [(&[] as Labels<'_>, value)])
    }

    /// Several of them, by labels.
    pub(super) fn counters<'l, V: EncodeCounterValue>(
        &mut self,
        about: About,
        values: impl IntoIterator<Item = (Labels<'l>, V)>,
    ) -> fmt::Result {
        self.family(about, MetricType::Counter, values, |encoder, value| {
            encoder.encode_counter::<NoLabelSet, _, u64>(&value, None)
        })
    }

    /// A value that goes up and down.
    pub(super) fn gauge(&mut self, about: About, value: impl EncodeGaugeValue) -> fmt::Result {
        self.gauges(about, [(&[] as Labels<'_>, value)])
    }

    /// The same, if it is known.
    pub(super) fn known(&mut self, about: About, value: Option<impl EncodeGaugeValue>) -> fmt::Result {
        match value {
            Some(value) => self.gauge(about, value),
            None => Ok(()),
        }
    }

    /// Several of them, by labels.
    pub(super) fn gauges<'l, V: EncodeGaugeValue>(
        &mut self,
        about: About,
        values: impl IntoIterator<Item = (Labels<'l>, V)>,
    ) -> fmt::Result {
        self.family(about, MetricType::Gauge, values, |encoder, value| {
            encoder.encode_gauge(&value)
        })
    }

    /// Values by buckets.
    pub(super) fn histograms<'l>(
        &mut self,
        about: About,
        values: impl IntoIterator<Item = (Labels<'l>, Distribution)>,
    ) -> fmt::Result {
        self.family(about, MetricType::Histogram, values, |encoder, value| {
            encoder.encode_histogram::<NoLabelSet>(value.sum, value.count, &value.buckets, None)
        })
    }

    /// Facts, all of them labels.
    pub(super) fn info(&mut self, about: About, labels: Labels<'_>) -> fmt::Result {
        self.family(
            about,
            MetricType::Info,
            [(&[] as Labels<'_>, labels)],
            |encoder, labels| encoder.encode_info(&labels),
        )
    }

    fn family<'l, V>(
        &mut self,
        (name, help): About,
        metric_type: MetricType,
        values: impl IntoIterator<Item = (Labels<'l>, V)>,
        encode: impl Fn(&mut MetricEncoder<'_>, V) -> fmt::Result,
    ) -> fmt::Result {
        let (name, unit) = parts(name);
        let mut encoder = self
            .encoder
            .encode_descriptor(name, help, unit.as_ref(), metric_type)?;
        for (labels, value) in values {
            if labels.is_empty() {
                encode(&mut encoder, value)?;
            } else {
                encode(&mut encoder.encode_family(&labels)?, value)?;
            }
        }
        Ok(())
    }
}

/// A name without what the encoder appends by itself, and the unit that it ends in.
fn parts(name: &str) -> (&str, Option<Unit>) {
    let name = name
        .strip_suffix("_total")
        .or_else(|| name.strip_suffix("_info"))
        .unwrap_or(name);
    let units = [("_seconds", Unit::Seconds), ("_bytes", Unit::Bytes)];
    let with_unit = units
        .into_iter()
        .find_map(|(ending, unit)| Some((name.strip_suffix(ending)?, Some(unit))));
    with_unit.unwrap_or((name, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_open_metrics() {
        let text = text(|page| {
            page.counters(
                ("callbacks_total", "Callbacks."),
                [(&[("source", "a\"b")] as Labels<'_>, 3_u64)],
            )?;
            page.gauge(("disk_free_bytes", "Free."), 7_u64)?;
            page.known(("unknown", "Nothing."), None::<u64>)?;
            page.info(("build_info", "Build."), &[("version", "1.2.3")])
        });
        let expected = "\
# HELP callbacks Callbacks.
# TYPE callbacks counter
callbacks_total{source=\"a\\\"b\"} 3
# HELP disk_free_bytes Free.
# TYPE disk_free_bytes gauge
# UNIT disk_free_bytes bytes
disk_free_bytes 7
# HELP build Build.
# TYPE build info
build_info{version=\"1.2.3\"} 1
# EOF
";
        assert_eq!(text.unwrap(), expected);
    }
}
