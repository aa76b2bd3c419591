//! What another service compiles when it only verifies, and what the card of the package names.

use std::{env, process::Command};

use crate::support::Outcome;

fn tree(arguments: &[&str]) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["tree", "--locked", "--edges", "normal", "--prefix", "none", "--format", "{p}"])
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    let text = String::from_utf8(output.stdout)?;
    Ok(text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect())
}

#[test]
fn the_verifier_pulls_in_no_database_and_no_server() -> Outcome {
    let packages = tree(&["--no-default-features", "--features", "verifier"])?;
    assert!(packages.iter().any(|package| package == "jsonwebtoken"), "{packages:?}");
    let unwanted = [
        "diesel",
        "diesel-async",
        "libsqlite3-sys",
        "tokio-postgres",
        "bb8",
        "argon2",
        "rsa",
        "axum",
        "clap",
        "figment",
        "rustls",
        "tonic-health",
        "tonic-reflection",
        "prometheus-client",
        "tracing-subscriber",
        "ring",
        "openssl",
        "jose-rs",
    ];
    let found: Vec<&String> =
        packages.iter().filter(|package| unwanted.contains(&package.as_str())).collect();
    assert!(found.is_empty(), "{found:?}");
    Ok(())
}

#[test]
fn there_is_one_crypto_library() -> Outcome {
    let packages = tree(&[])?;
    for package in [
        "tonic",
        "prost",
        "tokio",
        "diesel",
        "diesel-async",
        "bb8",
        "jsonwebtoken",
        "rsa",
        "argon2",
        "uuid",
        "chrono",
        "tonic-health",
    ] {
        assert!(packages.iter().any(|found| found == package), "{package} is not used");
    }
    for package in ["ring", "openssl", "openssl-sys", "native-tls"] {
        assert!(!packages.iter().any(|found| found == package), "{package} is built too");
    }
    // No library encrypts tokens with aws-lc; jose-rs brings these two, and nothing else may use them.
    for package in ["p256", "ed25519-dalek"] {
        let users = tree(&["--invert", package, "--depth", "1"])?;
        let is_jose = |user: &String| [package, "jose-rs", "kryptering"].contains(&user.as_str());
        assert!(users.iter().all(is_jose), "{package} is built for {users:?}");
    }
    Ok(())
}
