//! Folders use only what they may.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::support::Outcome;

/// Each folder (or file) of `src`, which of our modules it may name, and which libraries it may not.
const RULES: [(&str, &[&str], &[&str]); 10] = [
    (
        "domain",
        &["domain"],
        &["tonic", "diesel", "tokio", "axum", "std::time", "std::fs", "std::env", "aws_lc_rs", "tracing"],
    ),
    ("crypto", &["crypto", "domain"], &["tonic", "diesel", "axum", "std::fs", "std::env"]),
    ("fetch", &["fetch"], &["tonic", "diesel", "axum", "jsonwebtoken", "std::fs", "std::env"]),
    ("models", &["models", "domain"], &["tonic", "axum", "argon2", "aws_lc_rs"]),
    // Its files are tokio's: what follows the issuer must not block.
    (
        "verifier",
        &["verifier", "clock", "domain", "proto"],
        &["diesel", "axum", "argon2", "std::fs", "std::env"],
    ),
    (
        "app",
        &["app", "clock", "crypto", "domain", "fetch", "models", "verifier"],
        &["tonic", "diesel", "axum", "std::fs", "std::env", "figment"],
    ),
    (
        "rpc",
        &["rpc", "app", "domain", "proto", "verifier"],
        &["diesel", "aws_lc_rs", "argon2", "std::fs", "std::env"],
    ),
    ("http", &["http", "app", "domain"], &["tonic", "diesel", "aws_lc_rs", "argon2", "std::fs", "std::env"]),
    ("config", &["config", "app", "crypto", "domain", "models"], &["tonic", "diesel", "axum"]),
    (
        "server",
        &["server", "app", "clock", "config", "crypto", "http", "models", "rpc"],
        &["diesel", "argon2", "std::env"],
    ),
];

/// What the verifier's feature set compiles of the domain.
const DOMAIN_OF_THE_VERIFIER: [&str; 4] =
    ["domain::algorithm", "domain::claims", "domain::encryption", "domain::trust"];

fn sources(under: &Path) -> Result<Vec<PathBuf>, std::io::Error> {
    let file = under.with_extension("rs");
    let mut found: Vec<PathBuf> = if file.is_file() { vec![file] } else { Vec::new() };
    if under.is_dir() {
        for entry in fs::read_dir(under)? {
            let path = entry?.path();
            if path.is_dir() {
                found.extend(sources(&path)?);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    Ok(found)
}

/// The code of a file: without comments and without its own unit tests.
fn code(path: &Path) -> Result<String, std::io::Error> {
    let text = fs::read_to_string(path)?;
    let text = text.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

/// What follows each `crate::`, two names deep, also in `use crate::{a, b::c}`.
fn own_modules(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for after in code.split("crate::").skip(1) {
        match after.strip_prefix('{') {
            None => found.extend([name(after)]),
            Some(group) => found.extend(members(group).into_iter().map(|member| name(&member))),
        }
    }
    found
}

/// The members of a group up to its closing brace.
fn members(group: &str) -> Vec<String> {
    let (mut depth, mut member, mut found) = (0, String::new(), Vec::new());
    for c in group.chars() {
        match c {
            '}' if depth == 0 => break,
            ',' if depth == 0 => found.push(std::mem::take(&mut member)),
            _ => {
                depth += i32::from(c == '{') - i32::from(c == '}');
                member.push(c);
            }
        }
    }
    found.push(member);
    found.iter().map(|member| member.trim().to_owned()).filter(|member| !member.is_empty()).collect()
}

fn name(path: &str) -> String {
    let is_path = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let path: String = path.chars().take_while(|c| is_path(*c)).collect();
    path.split("::").filter(|part| !part.is_empty()).take(2).collect::<Vec<_>>().join("::")
}

#[test]
fn folders_use_only_what_they_may() -> Outcome {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for (folder, allowed, forbidden) in RULES {
        let files = sources(&src.join(folder))?;
        assert!(!files.is_empty(), "{folder} is not there");
        for file in files {
            let code = code(&file)?;
            for module in own_modules(&code) {
                let top = module.split("::").next().unwrap_or_default();
                let is_too_deep = folder == "verifier" && top == "domain" && !is_for_the_verifier(&code);
                if !allowed.contains(&top) || is_too_deep {
                    wrong.push(format!("{} uses crate::{module}", file.display()));
                }
            }
            for library in forbidden {
                if code.contains(&format!("{library}::")) {
                    wrong.push(format!("{} uses {library}", file.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

fn is_for_the_verifier(code: &str) -> bool {
    let named = own_modules(code).into_iter().filter(|module| module.starts_with("domain"));
    // `domain::{claims::…, trust::…}` is cut to `domain`; its members are looked up one by one.
    named.into_iter().all(|module| {
        if module != "domain" {
            return DOMAIN_OF_THE_VERIFIER.contains(&module.as_str());
        }
        code.split("domain::{").skip(1).flat_map(members).all(|member| {
            let member = format!("domain::{}", member.split("::").next().unwrap_or_default());
            DOMAIN_OF_THE_VERIFIER.contains(&member.as_str())
        })
    })
}

#[test]
fn every_folder_says_what_it_owns() -> Outcome {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for folder in ["app", "cli", "crypto", "domain", "http", "models", "rpc", "verifier"] {
        let text = fs::read_to_string(src.join(folder).join("mod.rs"))?;
        assert!(text.starts_with("//! "), "{folder} does not begin with what it owns");
        assert!(text.contains("//! Must not enter: "), "{folder} does not say what must not enter");
    }
    Ok(())
}

/// Where statuses are built: the server's, and, in other people's services, those of a guard and of a client.
const STATUSES: [&str; 4] = [
    "rpc/status.rs",
    "verifier/guard/answer.rs",
    "verifier/service_identity/error.rs",
    "verifier/signed_in/error.rs",
];

#[test]
fn transactions_open_in_app_and_statuses_are_built_where_they_belong() -> Outcome {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in sources(&src)? {
        let code = code(&file)?;
        let path = file.strip_prefix(&src)?.display().to_string();
        let opens = code.contains(".tx(") || code.contains(".tx::<");
        assert!(!opens || path.starts_with("app/"), "{path} opens a transaction");
        let builds = ["Status::new(", "Status::with_", "Status::internal(", "Status::invalid_argument("];
        let builds = builds.iter().any(|call| code.contains(call)) || code.contains(" for Status {");
        assert!(!builds || STATUSES.contains(&&*path), "{path} builds a Status");
    }
    Ok(())
}
