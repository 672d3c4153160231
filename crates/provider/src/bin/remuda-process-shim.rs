//! The `process` provider's shim as a program of its own, for tests and for whoever embeds the
//! provider without the server's binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    remuda_provider::process::shim::main(std::env::args_os().skip(1))
}
