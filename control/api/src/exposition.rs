//! The text in which metrics are told: Prometheus' own (0.0.4), and OpenMetrics (1.0.0) for those who ask for it.
//!
//! A family's HELP and TYPE are written before its first sample, and not at all where it has none.

use std::fmt::Write as _;

mod process;

pub use process::Process;

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Observations in buckets.
    Histogram,
}

/// Metrics being written.
#[derive(Debug)]
pub struct Exposition {
    text: String,
    open: bool,
}

impl Exposition {
    /// In the format that a request's `Accept` asks for.
    #[must_use]
    pub fn new(accept: Option<&str>) -> Self {
        let asked = |part: &str| {
            let mut pieces = part.split(';').map(str::trim);
            let open = pieces.next() == Some("application/openmetrics-text");
            // A weight of nothing is a refusal.
            open && !pieces.any(|piece| piece.strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0)))
        };
        Self { text: String::new(), open: accept.is_some_and(|accept| accept.split(',').any(asked)) }
    }

    /// The content type of [`finish`](Self::finish).
    #[must_use]
    pub fn content_type(&self) -> &'static str {
        if self.open {
            "application/openmetrics-text; version=1.0.0; charset=utf-8"
        } else {
            "text/plain; version=0.0.4; charset=utf-8"
        }
    }

    /// Begins a family. A counter whose name does not end in `_total` is told as OpenMetrics' `unknown`.
    pub fn family<'a>(&'a mut self, name: &'a str, kind: Kind, help: &'a str) -> Family<'a> {
        Family { to: self, name, kind, help, begun: false }
    }

    /// The whole text.
    #[must_use]
    pub fn finish(mut self) -> String {
        if self.open {
            self.text.push_str("# EOF\n");
        }
        self.text
    }
}

/// One family of an [`Exposition`].
#[derive(Debug)]
pub struct Family<'a> {
    to: &'a mut Exposition,
    name: &'a str,
    kind: Kind,
    help: &'a str,
    begun: bool,
}

impl Family<'_> {
    /// Writes a sample.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: f64) {
        self.line("", labels, None, value, None);
    }

    /// Writes a sample of a time, in milliseconds since 1970.
    pub fn sample_at(&mut self, labels: &[(&str, &str)], value: f64, millis: i64) {
        self.line("", labels, None, value, Some(millis));
    }

    /// Writes a histogram: the upper bounds with how many observations each took (not summed up), how many were beyond, the sum.
    pub fn histogram(&mut self, labels: &[(&str, &str)], buckets: &[(f64, u64)], beyond: u64, sum: f64) {
        let mut count = 0;
        for (bound, observed) in buckets {
            count += observed;
            self.line("_bucket", labels, Some(&number(*bound, self.to.open)), as_float(count), None);
        }
        count += beyond;
        self.line("_bucket", labels, Some("+Inf"), as_float(count), None);
        self.line("_sum", labels, None, sum, None);
        self.line("_count", labels, None, as_float(count), None);
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], bound: Option<&str>, value: f64, millis: Option<i64>) {
        self.begin();
        let text = &mut self.to.text;
        text.push_str(self.name);
        text.push_str(suffix);
        let all = labels.iter().copied().chain(bound.map(|bound| ("le", bound)));
        let mut separator = '{';
        for (label, value) in all {
            text.push(separator);
            separator = ',';
            text.push_str(label);
            text.push_str("=\"");
            escape(value, true, text);
            text.push('"');
        }
        if separator == ',' {
            text.push('}');
        }
        text.push(' ');
        text.push_str(&number(value, false));
        if let Some(millis) = millis {
            // Writing to a String cannot fail.
            let _infallible = if self.to.open {
                write!(text, " {}.{:03}", millis.div_euclid(1000), millis.rem_euclid(1000))
            } else {
                write!(text, " {millis}")
            };
        }
        text.push('\n');
    }

    fn begin(&mut self) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        let (name, kind) = match (self.kind, self.to.open) {
            (Kind::Counter, false) => (self.name, "counter"),
            (Kind::Counter, true) => match self.name.strip_suffix("_total") {
                Some(stem) => (stem, "counter"),
                None => (self.name, "unknown"),
            },
            (Kind::Gauge, _) => (self.name, "gauge"),
            (Kind::Histogram, _) => (self.name, "histogram"),
        };
        let text = &mut self.to.text;
        let _infallible = write!(text, "# HELP {name} ");
        escape(self.help, self.to.open, text);
        let _infallible = write!(text, "\n# TYPE {name} {kind}\n");
    }
}

fn escape(value: &str, quotes: bool, to: &mut String) {
    for c in value.chars() {
        match c {
            '\\' => to.push_str("\\\\"),
            '\n' => to.push_str("\\n"),
            '"' if quotes => to.push_str("\\\""),
            other => to.push(other),
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "counts beyond 2^53 are told to the nearest that a float can say")]
fn as_float(count: u64) -> f64 {
    count as f64
}

/// As Go and Prometheus read it. `point`: with a decimal point, as OpenMetrics wants bounds.
fn number(value: f64, point: bool) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "+Inf".to_owned() } else { "-Inf".to_owned() };
    }
    if value.is_nan() {
        return "NaN".to_owned();
    }
    let text = value.to_string();
    if point && !text.contains('.') { format!("{text}.0") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(accept: Option<&str>) -> String {
        let mut text = Exposition::new(accept);
        let mut family = text.family("requests_total", Kind::Counter, "All \"requests\".\nEach once.");
        family.sample(&[("path", "a\\b\"c\n")], 3.0);
        family.sample_at(&[], 1.5, 1_700_000_000_042);
        text.family("nothing", Kind::Gauge, "Not there.");
        text.family("seconds", Kind::Histogram, "Time.").histogram(&[("v", "x")], &[(0.5, 1), (1.0, 2)], 4, 9.25);
        text.finish()
    }

    #[test]
    fn prometheus_text() {
        assert_eq!(
            written(Some("text/plain;version=0.0.4, application/openmetrics-text;q=0")),
            "# HELP requests_total All \"requests\".\\nEach once.\n# TYPE requests_total counter\n\
             requests_total{path=\"a\\\\b\\\"c\\n\"} 3\nrequests_total 1.5 1700000000042\n\
             # HELP seconds Time.\n# TYPE seconds histogram\n\
             seconds_bucket{v=\"x\",le=\"0.5\"} 1\nseconds_bucket{v=\"x\",le=\"1\"} 3\n\
             seconds_bucket{v=\"x\",le=\"+Inf\"} 7\nseconds_sum{v=\"x\"} 9.25\nseconds_count{v=\"x\"} 7\n"
        );
    }

    #[test]
    fn open_metrics() {
        let text = written(Some("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.2"));
        assert!(text.starts_with("# HELP requests All \\\"requests\\\".\\nEach once.\n# TYPE requests counter\n"));
        assert!(text.contains("\nrequests_total 1.5 1700000000.042\n") && text.contains("le=\"1.0\"}"));
        assert!(text.ends_with("\n# EOF\n"));
    }
}
