//! The example with four services that call each other does what the README shows.

use std::{env, fs, path::Path};

use tokio::process::Command;

use crate::support::{Outcome, file, run};

/// What stands around the example's output.
const BEFORE: &str = "```sh\ncargo run --example mesh\n```\n\n```text\n";
const AFTER: &str = "```\n";
const HINT: &str = "where the README is to change: TESTS_WRITE_README=1 scripts/test --test service the_mesh";

#[tokio::test(flavor = "multi_thread")]
async fn the_mesh_prints_what_the_readme_shows() -> Outcome {
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--locked", "--example", "mesh"])
        .status()
        .await?;
    assert!(built.success());
    let mut mesh =
        Command::new(Path::new(env!("CARGO_BIN_EXE_tessera")).with_file_name("examples").join("mesh"));
    mesh.env_clear().kill_on_drop(true);
    let ended = run(mesh).await?;
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);

    let readme = fs::read_to_string(file("README.md"))?;
    let (before, rest) = readme.split_once(BEFORE).ok_or("the README does not run it")?;
    let (shown, after) = rest.split_once(AFTER).ok_or("its output does not end")?;
    if env::var_os("TESTS_WRITE_README").is_some() {
        fs::write(file("README.md"), [before, BEFORE, &ended.stdout, AFTER, after].concat())?;
    } else {
        assert_eq!(ended.stdout, shown, "{HINT}");
    }
    Ok(())
}
