//! How the figures of a case move as the tables grow.

use super::case::Case;

/// How far one may move, either way.
const MOST: f64 = 0.2;
const FIGURES: [(&str, &str); 5] = [
    ("calls_per_second", "calls/s"),
    ("p50_us", "p50"),
    ("p99_us", "p99"),
    ("server_cpu_us", "server CPU"),
    ("ratio", "ratio"),
];

/// A line for each case and size: each figure against that with the smallest tables. Those that moved too far are bold.
pub fn lines(cases: &[Case]) -> Vec<String> {
    let mut lines: Vec<String> = cases.iter().filter_map(|case| line(case, smallest(cases, case)?)).collect();
    if !lines.is_empty() {
        let far: usize = lines.iter().map(|line| line.matches("**").count() / 2).sum();
        lines.push(format!("- Moved by more than {:.0} %, and bold: {far} of these figures.", MOST * 100.0));
    }
    lines
}

fn smallest<'c>(cases: &'c [Case], case: &Case) -> Option<&'c Case> {
    cases.iter().find(|other| other.name == case.name && other.place.database == case.place.database)
}

fn line(case: &Case, smallest: &Case) -> Option<String> {
    let (sessions, least) = case.place.sessions.zip(smallest.place.sessions)?;
    if sessions <= least {
        return None;
    }
    let moves: Vec<String> = FIGURES.iter().filter_map(|figure| moved(figure, case, smallest)).collect();
    let (name, database) = (case.name, case.place.database);
    Some(format!("- `{name}` on {database}, {least} → {sessions} sessions: {}.", moves.join(", ")))
}

fn moved((name, title): &(&str, &str), case: &Case, smallest: &Case) -> Option<String> {
    let moved = case.figure(name)? / smallest.figure(name)? - 1.0;
    let text = format!("{title} {:+.0} %", moved * 100.0);
    match moved.abs() {
        far if far > MOST => Some(format!("**{text}**")),
        // Neither where there is nothing to divide by.
        near if near.is_finite() => Some(text),
        _ => None,
    }
}
