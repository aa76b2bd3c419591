//! The command `tessera`: the command line names a command, and the command is obeyed.

use std::process::ExitCode;

fn main() -> ExitCode {
    tessera::cli::main()
}
