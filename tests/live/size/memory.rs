//! Resident memory beside what a node counts: with much data, and after that is deleted.

use std::net::SocketAddr;

use super::clients::{load, load_batches};
use super::watch::{Look, excess, look, metrics};
use super::{EVENTUAL, GIVES_BACK, STRONG, begin, mb, path};
use crate::http::{Answer, Ask, brief};
use crate::row::{Bench, Check, Row, holds, pause, wait_for};

/// Bytes of an eventual value, and of a strong one.
const VALUE: usize = 32;
const LARGE: usize = 16 << 10;

pub(super) const ROWS: &[Row] = &[
    Row {
        name: "size.memory-eventual",
        expected: "one node with --keys eventual keys: resident memory is at most twice the counted one and 64 MB, \
                   also 10 s after the namespace is deleted",
        run: |bench| memory(bench, EVENTUAL),
    },
    Row {
        name: "size.memory-strong",
        expected: "one node with a quarter of --mb in a strong namespace: resident memory is at most twice the counted \
                   one and 64 MB, also 10 s after the namespace is deleted",
        run: |bench| memory(bench, STRONG),
    },
];

fn memory(bench: &Bench, namespace: &str) -> Check<String> {
    let nodes = begin(bench, 1)?;
    let api = nodes.all[0].api;
    let empty = now(api)?;
    let records = if namespace == EVENTUAL {
        let _ = load_batches(api, EVENTUAL, (bench.sizes.keys, 1), VALUE, 0)?;
        bench.sizes.keys
    } else {
        let keys = (bench.sizes.mb * super::MB / 4 / LARGE as u64).max(1);
        let _ = load(&[api], STRONG, keys, LARGE)?;
        keys
    };
    let loaded = settled(api)?;
    let deletion = Ask::new("DELETE", path(namespace, "").trim_end_matches('/')).send(api);
    holds(deletion.as_ref().is_some_and(Answer::is_ok), || {
        format!("the deletion is answered {}", brief(deletion.as_ref()))
    })?;
    let deleted = settled(api)?;
    let told =
        |look: &Look| format!("{} MB resident, {} MB counted", mb(look.resident), mb(look.counted));
    let observed = format!(
        "{records} records: empty {}; loaded {}, {} bytes a record; deleted {}",
        told(&empty),
        told(&loaded),
        loaded.resident.saturating_sub(empty.resident) / records.max(1),
        told(&deleted)
    );
    holds(excess(&[loaded]) == 0 && excess(&[deleted]) == 0, || observed.clone())?;
    Ok(observed)
}

fn now(api: SocketAddr) -> Check<Look> {
    metrics(api).map(|page| look(&page)).ok_or_else(|| "no metrics".into())
}

/// A look once the law holds, or after the time in which it must.
fn settled(api: SocketAddr) -> Check<Look> {
    pause(std::time::Duration::from_secs(1));
    let lawful = || now(api).ok().filter(|look| excess(&[*look]) == 0);
    wait_for(GIVES_BACK, lawful).map_or_else(|| now(api), |(look, _)| Ok(look))
}
