//! What the README says of the settings is what there is.

use std::collections::BTreeMap;

use serde_json::Value;
use tessera::config::Config;

use crate::support::Outcome;

const README: &str = include_str!("../../README.md");

/// The rows of the table under a heading, cell by cell, without the table's head.
fn table(heading: &str) -> Vec<Vec<&'static str>> {
    let (_, section) =
        README.split_once(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("no section {heading}"));
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter(|line| line.starts_with('|'));
    rows.skip(2).map(|row| row.trim_matches('|').split(" | ").map(str::trim).collect()).collect()
}

fn is_same(told: &str, value: &Value) -> bool {
    match value {
        // What stands in for it is told in words.
        Value::Null => true,
        Value::String(text) => {
            let duration = |text: &str| humantime::parse_duration(text).ok();
            told == text || (duration(told).is_some() && duration(told) == duration(text))
        }
        other => serde_json::from_str::<Value>(told).is_ok_and(|told| told == *other),
    }
}

#[test]
fn it_names_every_setting_with_its_default_and_no_other() -> Outcome {
    let mut settings = BTreeMap::new();
    let config = serde_json::to_value(Config::default())?;
    for (section, names) in config.as_object().ok_or("no sections")? {
        for (name, value) in names.as_object().ok_or("no names")? {
            settings.insert(format!("{section}.{name}"), value.clone());
        }
    }
    for row in table("Settings") {
        let [name, default, _] = row[..] else {
            return Err(format!("not three cells: {row:?}").into());
        };
        let name = name.trim_matches('`');
        let value = settings.remove(name).ok_or_else(|| format!("{name}: no such setting"))?;
        let told = default.trim_matches('`');
        assert!(is_same(told, &value), "{name}: {told} instead of {value}");
    }
    assert!(settings.is_empty(), "not in the README: {:?}", settings.keys());
    Ok(())
}
