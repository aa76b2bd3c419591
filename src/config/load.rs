//! Reads the settings from everywhere, and knows where each came from.

use std::path::{Path, PathBuf};

use figment::{
    Figment, Metadata, Profile, Provider,
    providers::{Env, Format, Serialized, Toml},
    value::{Dict, Map, Value},
};

use super::{BadSetting, Checked, Config};

/// What environment variables begin with.
const PREFIX: &str = "TESSERA_";
/// Settings whose values are never repeated.
const SECRETS: [&str; 2] = ["database.url", "sealing.keks"];
/// Read by the bootstrap alone; not a setting.
const BOOTSTRAP_PASSWORD: &str = "bootstrap_admin_password";

/// Settings from the command line, each as `section.name` and value.
#[derive(Debug, Default)]
pub struct Flags(pub Vec<(&'static str, String)>);

impl Provider for Flags {
    fn metadata(&self) -> Metadata {
        Metadata::named("the command line")
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let mut dict = Dict::new();
        for (path, value) in &self.0 {
            let value = if value == "true" { Value::from(true) } else { Value::from(value.as_str()) };
            let nested = figment::util::nest(path, value).into_dict().unwrap_or_default();
            dict = merged(dict, nested);
        }
        Ok(Map::from([(Profile::Default, dict)]))
    }
}

/// Two levels are all there are: sections and names.
fn merged(mut into: Dict, from: Dict) -> Dict {
    for (section, names) in from {
        match (into.get_mut(&section), names) {
            (Some(Value::Dict(_, into)), Value::Dict(_, names)) => into.extend(names),
            (_, names) => {
                into.insert(section, names);
            }
        }
    }
    into
}

impl Config {
    /// Reads the settings. A part of the program that obeys some of them need not have them all checked.
    pub fn load(file: Option<&PathBuf>, flags: Flags) -> Result<Loaded, BadSetting> {
        let mut figment = Figment::new();
        if let Some(file) = file {
            if !file.is_file() {
                return Err(BadSetting {
                    setting: "--config".to_owned(),
                    problem: format!("{} is not a file", file.display()),
                    source_name: "the command line".to_owned(),
                });
            }
            let toml = Toml::file_exact(file);
            toml.data().map_err(|error| bad_file(file, &error))?;
            figment = figment.merge(toml);
        }
        let database_url = Env::raw().only(&["DATABASE_URL"]).map(|_| "database.url".into()).split(".");
        let variables = Env::prefixed(PREFIX).ignore(&[BOOTSTRAP_PASSWORD]).split("__");
        let figment = figment.merge(database_url).merge(variables).merge(flags);
        refuse_unknown(&figment)?;
        let config: Self = figment.extract().map_err(|error| bad_value(&error))?;
        Ok(Loaded { config, figment })
    }
}

/// Settings as they were read, and where each came from.
pub struct Loaded {
    /// The settings.
    pub config: Config,
    figment: Figment,
}

impl Loaded {
    /// Checks each setting.
    pub fn check(self) -> Result<Checked, BadSetting> {
        Checked::new(self.config, &|setting| source_of(&self.figment, setting))
    }
}

/// A setting that nobody obeys is a typing mistake which its author believes in.
fn refuse_unknown(figment: &Figment) -> Result<(), BadSetting> {
    let known = Figment::from(Serialized::defaults(Config::default()));
    let data = figment.data().map_err(|error| bad_value(&error))?;
    for (section, names) in data.values().flatten() {
        let Value::Dict(_, names) = names else {
            return Err(unknown(figment, section));
        };
        for name in names.keys() {
            let setting = format!("{section}.{name}");
            if !known.contains(&setting) {
                return Err(unknown(figment, &setting));
            }
        }
    }
    Ok(())
}

fn unknown(figment: &Figment, setting: &str) -> BadSetting {
    BadSetting {
        setting: setting.to_owned(),
        problem: "there is no such setting".to_owned(),
        source_name: source_of(figment, setting),
    }
}

/// The parser's message without the line that it quotes, which may hold a secret.
fn bad_file(file: &Path, error: &figment::Error) -> BadSetting {
    let message = error.kind.to_string();
    let is_quote = |line: &&str| {
        let line = line.trim_start().trim_start_matches(|c: char| c.is_ascii_digit());
        line.trim_start().starts_with('|')
    };
    let told: Vec<&str> = message.lines().filter(|line| !is_quote(line)).collect();
    BadSetting {
        setting: "--config".to_owned(),
        problem: told.join(": "),
        source_name: format!("the file {}", file.display()),
    }
}

fn bad_value(error: &figment::Error) -> BadSetting {
    let setting = error.path.join(".");
    BadSetting {
        problem: if SECRETS.contains(&setting.as_str()) {
            "is not a text".to_owned()
        } else {
            error.kind.to_string()
        },
        source_name: error.metadata.as_ref().map_or_else(|| "the settings".to_owned(), |m| name(m, &setting)),
        setting,
    }
}

fn source_of(figment: &Figment, setting: &str) -> String {
    figment.find_metadata(setting).map_or_else(|| "the default".to_owned(), |m| name(m, setting))
}

/// The source as its author knows it.
fn name(metadata: &Metadata, setting: &str) -> String {
    if metadata.name.contains("environment") {
        // figment puts the prefix into the name; the one variable without it is this one.
        let is_url = !metadata.name.contains(PREFIX);
        let variable = setting.to_uppercase().replace('.', "__");
        return format!(
            "the environment variable {}",
            if is_url { "DATABASE_URL".to_owned() } else { format!("{PREFIX}{variable}") }
        );
    }
    match &metadata.source {
        Some(figment::Source::File(path)) => format!("the file {}", path.display()),
        _ => metadata.name.to_string(),
    }
}
