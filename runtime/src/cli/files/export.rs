//! `export`: all rows of a namespace.
//!
//! A strong namespace is exported as it was at one revision. Its pages are kept in a temporary file until the last one
//! is there, because one that changed meanwhile makes the export begin again.

use super::args::Export;
use crate::api::uri;
use crate::cli::client::{Call, Client};
use crate::cli::exit::Failure;
use crate::cli::output::{Screen, spinner};

/// `export ...`.
pub(in crate::cli) async fn run(
    export: &Export,
    mut client: Client,
    screen: &mut Screen,
) -> Result<(), Failure> {
    let ns = uri::encode(export.ns.as_bytes());
    let mut after = String::new();
    let bar = spinner("rows exported");
    loop {
        let answer = client.send(&Call::get(format!("/v1/namespaces/{ns}/rows{after}"))).await?;
        client.pin();
        screen.bytes(&answer.body)?;
        screen.finish()?;
        bar.inc(answer.body.iter().filter(|byte| **byte == b'\n').count() as u64);
        match (answer.header("continuum-more"), answer.header("continuum-next")) {
            (Some("true"), Some(next)) => after = format!("?after={next}"),
            _ => break,
        }
    }
    bar.finish_and_clear();
    Ok(())
}
