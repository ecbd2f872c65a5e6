//! The binary `continuum`.

fn main() -> std::process::ExitCode {
    continuum_runtime::cli::main()
}
