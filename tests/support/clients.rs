//! Clients in Python and JavaScript, and the programs that `scripts/test` installs for them.

use std::{env, path::PathBuf, process::Stdio};

use tokio::process::Command;

/// A file of the project.
pub fn file(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// What `scripts/test` has installed: where the variable says, else at this path below the target folder.
pub fn installed(variable: &str, path: &str) -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| file("target"), PathBuf::from);
    let path = env::var_os(variable).map_or_else(|| target.join(path), PathBuf::from);
    assert!(path.exists(), "no {}: run scripts/test, which installs it", path.display());
    path
}

/// One of the scripts in `tests/clients`, in Python or in JavaScript.
pub fn client(script: &str) -> Command {
    let mut command = if script.ends_with(".mjs") {
        // By the link that lies beside the modules, so that they are found.
        let mut node = Command::new(installed("TESTS_NODE", "node/bin/node"));
        node.args(["--preserve-symlinks", "--preserve-symlinks-main"]);
        node.arg(installed("TESTS_NODE_CLIENTS", "node/clients").join(script));
        node
    } else {
        let mut python = Command::new(installed("TESTS_PYTHON", "python/bin/python"));
        python.env("PYTHONDONTWRITEBYTECODE", "1").arg(file("tests/clients").join(script));
        python
    };
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Runs a client to its end; it must be content. Gives what it said.
pub async fn run_client(command: &mut Command) -> Result<String, Box<dyn std::error::Error>> {
    let output = command.output().await?;
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{said}{complained}", output.status);
    Ok(said.into_owned())
}
