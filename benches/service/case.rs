//! One line of the table: what was measured, its ceiling, and what their ratio must keep to.

use serde_json::{Value, json};

use super::load::{Sample, quantile_us};

/// Where something was measured.
#[derive(Clone, Copy)]
pub struct Place {
    pub database: &'static str,
    /// How many were stored.
    pub sessions: Option<u64>,
}

/// What the ratio of a case must keep to.
#[derive(Clone, Copy)]
pub enum Limit {
    AtMost(f64),
    AtLeast(f64),
    /// Nothing: it is there to be known.
    NoTarget,
}

impl Limit {
    /// Whether it does, where something is asked for.
    fn holds(self, ratio: f64) -> Option<bool> {
        match self {
            Self::AtMost(most) => Some(ratio <= most),
            Self::AtLeast(least) => Some(ratio >= least),
            Self::NoTarget => None,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtMost(most) => format!("≤ {most}"),
            Self::AtLeast(least) => format!("≥ {least}"),
            Self::NoTarget => "none".to_owned(),
        }
    }
}

/// The turns of a case and of its ceiling.
#[derive(Default)]
pub struct Rounds {
    subject: Vec<Sample>,
    ceiling: Vec<Sample>,
    ratios: Vec<f64>,
    ceiling_us: Vec<f64>,
    errors: u64,
}

impl Rounds {
    /// Takes a round in. The first one warms up; only its errors count. `ceiling_us` is the processor time that the
    /// ceiling allows to one call.
    pub fn push(&mut self, round: usize, subject: Sample, ceiling: Sample, ratio: f64, ceiling_us: f64) {
        self.errors += subject.errors + ceiling.errors;
        if round > 0 {
            self.subject.push(subject);
            self.ceiling.push(ceiling);
            self.ratios.push(ratio);
            self.ceiling_us.push(ceiling_us);
        }
    }
}

/// A line of the table.
pub struct Case {
    pub name: &'static str,
    pub place: Place,
    ratio: f64,
    limit: Limit,
    ceiling: String,
    figures: Vec<(&'static str, f64)>,
    pub errors: u64,
}

impl Case {
    /// Of rounds against a ceiling.
    pub fn of(
        name: &'static str,
        place: Place,
        mut rounds: Rounds,
        ceiling: &'static str,
        limit: Limit,
    ) -> Self {
        let of = |samples: &[Sample]| {
            let mut all: Vec<u64> = samples.iter().flat_map(|sample| sample.latencies.clone()).collect();
            let mut rates: Vec<f64> = samples.iter().map(Sample::rate).collect();
            (median(&mut rates), quantile_us(&mut all, 0.5), quantile_us(&mut all, 0.99))
        };
        let mut cpu: Vec<f64> = rounds.subject.iter().map(Sample::cpu_us).collect();
        let ((rate, p50, p99), (bare_rate, bare_p50, bare_p99)) = (of(&rounds.subject), of(&rounds.ceiling));
        let figures = vec![
            ("calls_per_second", rate),
            ("p50_us", p50),
            ("p99_us", p99),
            ("server_cpu_us", median(&mut cpu)),
            ("ceiling_calls_per_second", bare_rate),
            ("ceiling_p50_us", bare_p50),
            ("ceiling_p99_us", bare_p99),
            ("ceiling_cpu_us", median(&mut rounds.ceiling_us)),
        ];
        let ratio = median(&mut rounds.ratios);
        Self { name, place, ratio, limit, ceiling: ceiling.to_owned(), figures, errors: rounds.errors }
    }

    /// Of starts, against what they may take.
    pub fn of_start(name: &'static str, place: Place, starts: &Sample, most_ms: f64) -> Self {
        let (p50, p99) = (starts.quantile_us(0.5), starts.quantile_us(0.99));
        Self {
            name,
            place,
            ratio: p50 / 1e3 / most_ms,
            limit: Limit::AtMost(1.0),
            ceiling: format!("{most_ms} ms"),
            figures: vec![("p50_us", p50), ("p99_us", p99)],
            errors: 0,
        }
    }

    /// Of memory at rest and when full, each with what it may be.
    pub fn of_memory(
        database: &'static str,
        sessions: u64,
        [rest, full]: [(f64, f64); 2],
        errors: u64,
    ) -> Self {
        Self {
            name: "memory",
            place: Place { database, sessions: Some(sessions) },
            ratio: (rest.0 / rest.1).max(full.0 / full.1),
            limit: Limit::AtMost(1.0),
            ceiling: format!("{} MiB at rest, {} MiB full", rest.1, full.1),
            figures: vec![("rest_mib", rest.0), ("full_mib", full.0)],
            errors,
        }
    }

    /// One figure by its name in the JSON.
    pub fn figure(&self, name: &str) -> Option<f64> {
        if name == "ratio" {
            return Some(self.ratio);
        }
        self.figures.iter().find(|(have, _)| *have == name).map(|(_, value)| *value)
    }

    pub fn to_json(&self) -> Value {
        let mut case = json!({
            "name": self.name, "database": self.place.database, "sessions": self.place.sessions,
            "ratio": rounded(self.ratio), "target": self.limit.text(), "holds": self.limit.holds(self.ratio),
            "ceiling": self.ceiling, "errors": self.errors,
        });
        for (name, value) in &self.figures {
            case[name] = json!(rounded(*value));
        }
        case
    }

    /// As a row of [`HEAD`](super::report::HEAD)'s table.
    pub fn to_row(&self) -> String {
        let sessions = self.place.sessions.map_or_else(|| "–".to_owned(), |sessions| sessions.to_string());
        let what = match (self.figure("rest_mib"), self.figure("full_mib")) {
            (Some(rest), Some(full)) => format!("{}: {rest:.1} MiB at rest, {full:.1} MiB full", self.name),
            _ => self.name.to_owned(),
        };
        let figure = |name| match self.figure(name) {
            Some(value) if value > 0.0 => format!("{value:.*}", usize::from(value < 100.0)),
            _ => "–".to_owned(),
        };
        let holds = if self.limit.holds(self.ratio) == Some(false) { " **missed**" } else { "" };
        format!(
            "| {what} | {} | {sessions} | {} | {} | {} | {} | {} | {} | {:.2} | {}{holds} |",
            self.place.database,
            figure("calls_per_second"),
            figure("p50_us"),
            figure("p99_us"),
            figure("server_cpu_us"),
            self.ceiling,
            [figure("ceiling_calls_per_second"), figure("ceiling_cpu_us")].join(" / "),
            self.ratio,
            self.limit.text(),
        )
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn rounded(value: f64) -> f64 {
    if value.is_finite() { (value * 1e3).round() / 1e3 } else { 0.0 }
}
