//! A node with much strong state that is killed and started again.

use std::net::SocketAddr;
use std::time::Duration;

use continuum_runtime::clock::Stopwatch;

use super::clients::load;
use super::watch::{folder_bytes, look, metrics};
use super::{MB, STRONG, begin, count, mb};
use crate::federation::SOON;
use crate::row::{Bench, Check, Row, holds, wait_for};

/// Bytes of one value.
const VALUE: usize = 16 << 10;
/// A start takes a second, and reads this much of the disk in each further one. A debug build is ten times slower.
const DISK_BYTES_A_SECOND: u64 = if cfg!(debug_assertions) { 20 * MB } else { 200 * MB };

pub(super) const ROWS: &[Row] = &[Row {
    name: "size.restart",
    expected: "a node with --mb of strong state is killed and started: ready within a second, a second more for each \
               200 MB on its disk, and every key is there",
    run: restart,
}];

fn restart(bench: &Bench) -> Check<String> {
    let mut nodes = begin(bench, 3)?;
    let apis: Vec<SocketAddr> = nodes.all.iter().map(|node| node.api).collect();
    let keys = (bench.sizes.mb * MB / VALUE as u64).max(1);
    let _ = load(&apis, STRONG, keys, VALUE)?;
    let expected = count(apis[0], STRONG).ok_or("the keys cannot be counted")?;
    let node = &mut nodes.all[2];
    let _ = node.kill();
    let disk = folder_bytes(&node.data);
    let watch = Stopwatch::start();
    node.start();
    let patience = SOON + Duration::from_secs(bench.sizes.mb);
    let is_ready = || node.ready().filter(|ready| ready.is_ready).map(drop);
    wait_for(patience, is_ready).ok_or_else(|| format!("not ready in {} s", patience.as_secs()))?;
    let took = watch.elapsed();
    let found = count(node.api, STRONG).unwrap_or(0);
    let now = metrics(node.api).map(|page| look(&page)).unwrap_or_default();
    bench.lose(expected.saturating_sub(found));
    let observed = format!(
        "{} MB in {keys} values, {} MB on disk: ready after {:.2} s, with {} MB resident and {} MB counted; {found} \
         of {expected} keys",
        bench.sizes.mb,
        mb(disk),
        took.as_secs_f64(),
        mb(now.resident),
        mb(now.counted)
    );
    holds(took <= bound(disk) && found == expected, || observed.clone())?;
    Ok(observed)
}

fn bound(disk: u64) -> Duration {
    Duration::from_secs(1) + Duration::from_millis(disk * 1000 / DISK_BYTES_A_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_follows_the_disk() {
        assert_eq!(bound(0), Duration::from_secs(1));
        assert_eq!(bound(2 * DISK_BYTES_A_SECOND), Duration::from_secs(3));
    }
}
