//! The cost of steps and of memory, phase by phase: what the bench `size` measures, as figures.
//!
//! A row has phases, and a phase has steps: one event in, its actions out. This module keeps the account and makes the
//! figures. It drives nothing and reads no clock.

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

/// Bytes of memory that a process may take beside what it counts, over the two that it may take for each counted one.
pub const BESIDE_BYTES: u64 = 64 << 20;
/// The longest step that the histogram tells apart, in nanoseconds: an hour.
const LONGEST_NS: u64 = 3600 * 1_000_000_000;

/// Memory at one moment, over all nodes of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Bytes that the allocator handed out.
    pub allocated: u64,
    /// Bytes that the kernel keeps in memory for the process.
    pub resident: u64,
    /// Bytes that the nodes count themselves.
    pub counted: u64,
    /// Nodes in the process.
    pub nodes: u64,
}

/// The steps of a phase or of a row.
#[derive(Clone, Debug)]
pub struct Steps {
    times: Histogram<u64>,
    total_ns: u64,
    longest_ns: u64,
    longest: String,
    most_bytes: u64,
}

/// One part of a row's work.
#[derive(Debug)]
pub struct Phase {
    name: String,
    steps: Steps,
    before: Memory,
    after: Memory,
    peak_allocated: u64,
    peak_resident: u64,
    /// Whether nothing is under way at the end, so that the memory of the work must have been given back.
    settles: bool,
    stopped: Option<String>,
    more: Map<String, Value>,
}

/// The account of a row: its phases, the last of which is under way.
#[derive(Debug)]
pub struct Meter {
    phases: Vec<Phase>,
    /// Bytes that were allocated before there was any record.
    empty_bytes: u64,
    /// Records that the row's memory is divided by.
    records: u64,
    /// Whether a phase is under way.
    runs: bool,
}

impl Default for Steps {
    fn default() -> Self {
        let times = Histogram::new_with_bounds(1, LONGEST_NS, 3).expect("constant bounds");
        Self { times, total_ns: 0, longest_ns: 0, longest: String::new(), most_bytes: 0 }
    }
}

impl Steps {
    /// Adds a step that took this long and allocated this much. `name` is asked only for a step that is the longest.
    pub fn add(&mut self, ns: u64, bytes: u64, name: impl FnOnce() -> String) {
        self.times.saturating_record(ns.max(1));
        self.total_ns += ns;
        self.most_bytes = self.most_bytes.max(bytes);
        if ns > self.longest_ns {
            self.longest_ns = ns;
            self.longest = name();
        }
    }

    fn merge(&mut self, other: &Self) {
        self.times.add(&other.times).expect("both have the same bounds");
        self.total_ns += other.total_ns;
        self.most_bytes = self.most_bytes.max(other.most_bytes);
        if other.longest_ns > self.longest_ns {
            self.longest_ns = other.longest_ns;
            self.longest.clone_from(&other.longest);
        }
    }

    /// The number of steps.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.times.len()
    }

    /// CPU time of all steps in nanoseconds.
    #[must_use]
    pub const fn total_ns(&self) -> u64 {
        self.total_ns
    }

    fn p999_ns(&self) -> u64 {
        self.times.value_at_quantile(0.999)
    }
}

impl Memory {
    /// Resident bytes divided by what a process may take for these counted bytes, times two. Above 2 it takes too much.
    fn over(resident: u64, counted: u64, nodes: u64) -> f64 {
        resident as f64 / (counted + nodes.max(1) * BESIDE_BYTES / 2) as f64
    }
}

impl Phase {
    fn begin(name: &str, settles: bool, before: Memory) -> Self {
        Self {
            name: name.into(),
            steps: Steps::default(),
            before,
            after: before,
            peak_allocated: before.allocated,
            peak_resident: before.resident,
            settles,
            stopped: None,
            more: Map::new(),
        }
    }

    /// Resident memory at its peak, and for a phase that settles at its end, beside what was counted.
    fn over(&self) -> f64 {
        let counted = self.before.counted.max(self.after.counted);
        let nodes = self.before.nodes.max(self.after.nodes);
        let peak = Memory::over(self.peak_resident.max(self.after.resident), counted, nodes);
        let Memory { resident, counted, nodes, .. } = self.after;
        if self.settles { peak.max(Memory::over(resident, counted, nodes)) } else { peak }
    }

    fn json(&self, per_record: impl Fn(Memory) -> Option<u64>) -> Value {
        let mut all = json!({
            "phase": self.name,
            "ended": self.stopped.is_none(),
            "steps": self.steps.count(),
            "cpu_s": rounded(self.steps.total_ns as f64 / 1e9),
            "longest_step_ms": ms(self.steps.longest_ns),
            "longest_step": self.steps.longest,
            "p999_step_ms": ms(self.steps.p999_ns()),
            "step_allocated_mb_max": mb(self.steps.most_bytes),
            "peak_mb": mb(self.peak_allocated),
            "settled_mb": mb(self.after.allocated),
            "counted_mb": mb(self.after.counted),
            "rss_peak_mb": mb(self.peak_resident.max(self.after.resident)),
            "rss_mb": mb(self.after.resident),
            "rss_over_counted": rounded(self.over()),
            "bytes_per_record": per_record(self.after),
        });
        let members = all.as_object_mut().expect("an object");
        members.extend(self.stopped.clone().map(|why| ("stopped".into(), why.into())));
        members.extend(self.more.clone());
        all
    }
}

impl Meter {
    /// The account of a row whose process has allocated this much before it begins.
    #[must_use]
    pub const fn new(empty_bytes: u64) -> Self {
        Self { phases: Vec::new(), empty_bytes, records: 0, runs: false }
    }

    /// Says how many records the memory holds from now on. 0: none that are counted.
    pub const fn holds(&mut self, records: u64) {
        self.records = records;
    }

    /// Begins a phase. One that `settles` waits until the memory of the work before it is given back.
    pub fn begin(&mut self, name: &str, settles: bool, before: Memory) {
        self.phases.push(Phase::begin(name, settles, before));
        self.runs = true;
    }

    /// Adds a step to the phase under way, and the most bytes that were allocated during it. A step between two phases
    /// is preparation and counts nowhere.
    pub fn step(&mut self, ns: u64, bytes: u64, peak: u64, name: impl FnOnce() -> String) {
        let Some(phase) = self.phases.last_mut().filter(|_| self.runs) else { return };
        phase.steps.add(ns, bytes, name);
        phase.peak_allocated = phase.peak_allocated.max(peak);
    }

    /// Adds a figure of its own to the phase under way.
    pub fn note(&mut self, name: &str, value: impl Into<Value>) {
        let phase = self.phases.last_mut().expect("a phase is under way");
        phase.more.insert(name.into(), value.into());
    }

    /// The steps of the phase under way.
    #[must_use]
    pub fn steps(&self) -> &Steps {
        &self.phases.last().expect("a phase is under way").steps
    }

    /// Ends the phase under way. `stopped` says how far it came when it did not reach its end.
    pub fn end(&mut self, after: Memory, peak_resident: u64, stopped: Option<String>) {
        self.runs = false;
        let phase = self.phases.last_mut().expect("a phase is under way");
        phase.after = after;
        phase.peak_allocated = phase.peak_allocated.max(after.allocated);
        phase.peak_resident = peak_resident;
        phase.stopped = stopped;
        phase.more.insert("holds".into(), self.records.into());
    }

    fn per_record(&self, memory: Memory, records: u64) -> Option<u64> {
        let bytes = memory.allocated.saturating_sub(self.empty_bytes);
        (records > 0 && memory.nodes > 0).then(|| bytes / records / memory.nodes)
    }

    /// The row as one line of JSON.
    #[must_use]
    pub fn row(&self, name: &str) -> Value {
        let mut steps = Steps::default();
        self.phases.iter().for_each(|phase| steps.merge(&phase.steps));
        let slowest = self.phases.iter().max_by_key(|phase| phase.steps.longest_ns);
        let holds = |phase: &Phase| phase.more.get("holds").and_then(Value::as_u64).unwrap_or(0);
        let phases: Vec<Value> = self
            .phases
            .iter()
            .map(|phase| phase.json(|after| self.per_record(after, holds(phase))))
            .collect();
        let over = self.phases.iter().map(Phase::over).fold(0.0, f64::max);
        // The first rest is that of all records, before anything is copied or deleted.
        let rest = self.phases.iter().find(|phase| phase.settles && holds(phase) > 0);
        json!({
            "row": name,
            "ended": self.phases.iter().all(|phase| phase.stopped.is_none()),
            "steps": steps.count(),
            "cpu_s": rounded(steps.total_ns as f64 / 1e9),
            "longest_step_ms": ms(steps.longest_ns),
            "longest_step": slowest.map(|phase| format!("{}: {}", phase.name, steps.longest)),
            "p999_step_ms": ms(steps.p999_ns()),
            "peak_mb": mb(self.phases.iter().map(|phase| phase.peak_allocated).max().unwrap_or(0)),
            "rss_peak_mb": mb(self.phases.iter().map(|phase| phase.peak_resident).max().unwrap_or(0)),
            "settled_mb": rest.map(|phase| mb(phase.after.allocated)),
            "counted_mb": rest.map(|phase| mb(phase.after.counted)),
            "bytes_per_record": rest.and_then(|phase| self.per_record(phase.after, holds(phase))),
            "rss_over_counted": rounded(over),
            "phases": phases,
        })
    }
}

/// The totals over all rows, for the last line.
#[must_use]
pub fn totals(rows: &[Value]) -> Value {
    let most = |member: &str| {
        let figures = rows.iter().filter_map(|row| row[member].as_f64());
        figures.reduce(f64::max)
    };
    let ended = rows.iter().filter(|row| row["ended"] == true).count();
    let phases = rows.iter().filter_map(|row| row["phases"].as_array()).flatten();
    let starts = phases.filter_map(|phase| phase["start_ms"].as_f64()).reduce(f64::max);
    json!({
        "rows": rows.len(),
        "ended": ended,
        "longest_step_ms_max": most("longest_step_ms"),
        "p999_step_ms_max": most("p999_step_ms"),
        "start_ms_max": starts,
        "rss_over_counted_max": most("rss_over_counted"),
    })
}

fn ms(ns: u64) -> f64 {
    rounded(ns as f64 / 1e6)
}

fn mb(bytes: u64) -> f64 {
    (bytes as f64 / f64::from(1 << 20) * 10.0).round() / 10.0
}

fn rounded(figure: f64) -> f64 {
    (figure * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1 << 20;

    fn memory(allocated: u64, resident: u64, counted: u64) -> Memory {
        Memory {
            allocated: allocated * MB,
            resident: resident * MB,
            counted: counted * MB,
            nodes: 1,
        }
    }

    #[test]
    fn the_longest_step_is_named_and_the_others_are_not_asked() {
        let mut steps = Steps::default();
        steps.add(10, 1, || "first".into());
        steps.add(5_000_000, 7, || "slow".into());
        steps.add(20, 3, || panic!("a step that is not the longest needs no name"));
        assert_eq!(
            (steps.longest_ns, steps.longest.as_str(), steps.most_bytes),
            (5_000_000, "slow", 7)
        );
        assert_eq!((steps.count(), steps.total_ns()), (3, 5_000_030));
    }

    #[test]
    fn one_slow_step_in_ten_thousand_is_above_the_percentile() {
        let mut steps = Steps::default();
        (0..9_999).for_each(|_| steps.add(1000, 0, String::new));
        steps.add(1_000_000, 0, String::new);
        assert_eq!(steps.p999_ns(), 1000);
        (0..20).for_each(|_| steps.add(1_000_000, 0, String::new));
        assert!(steps.p999_ns() >= 999_000, "{}", steps.p999_ns());
    }

    #[test]
    fn twice_the_counted_bytes_and_64_mb_are_the_bound() {
        assert_eq!(Memory::over(264 * MB, 100 * MB, 1), 2.0);
        assert_eq!(Memory::over(64 * MB, 0, 1), 2.0);
        assert_eq!(Memory::over(128 * MB, 0, 2), 2.0);
        assert!(Memory::over(65 * MB, 0, 1) > 2.0);
    }

    #[test]
    fn memory_that_is_not_given_back_counts_where_a_phase_settles() {
        let over = |settles| {
            let mut meter = Meter::new(0);
            meter.begin("idle", settles, memory(100, 200, 100));
            meter.end(memory(1, 200, 0), 200 * MB, None);
            meter.row("r")["rss_over_counted"].as_f64().unwrap()
        };
        assert!(over(false) < 2.0 && over(true) > 6.0);
    }

    #[test]
    fn a_record_is_charged_what_was_not_there_before() {
        let mut meter = Meter::new(10 * MB);
        meter.begin("load", false, memory(10, 20, 0));
        meter.holds(MB);
        let two = Memory { nodes: 2, ..memory(410, 500, 100) };
        meter.end(two, 500 * MB, None);
        let row = meter.row("r");
        assert_eq!(row["phases"][0]["bytes_per_record"], 200);
        assert_eq!(row["bytes_per_record"], Value::Null, "nothing has settled");
        for rest in [210, 310] {
            meter.begin("settle", true, memory(410, 500, 100));
            meter.end(memory(rest, 500, 100), 500 * MB, None);
        }
        let row = meter.row("r");
        assert_eq!(
            (row["bytes_per_record"].as_u64(), row["settled_mb"].as_f64()),
            (Some(200), Some(210.0))
        );
    }

    #[test]
    fn a_row_ends_when_all_its_phases_do() {
        let mut meter = Meter::new(0);
        meter.begin("load", false, memory(1, 2, 1));
        meter.step(2_000_000, 5, 3 * MB, || "Tick".into());
        meter.end(memory(1, 2, 1), 4 * MB, None);
        let row = meter.row("r");
        assert_eq!(
            (row["ended"].as_bool(), row["longest_step"].as_str()),
            (Some(true), Some("load: Tick"))
        );
        assert_eq!((row["peak_mb"].as_f64(), row["rss_peak_mb"].as_f64()), (Some(3.0), Some(4.0)));
        meter.begin("join", false, memory(1, 2, 1));
        meter.note("came", 7);
        meter.end(memory(1, 2, 1), 4 * MB, Some("no progress".into()));
        meter.step(9_000_000, 5, 9 * MB, || panic!("no phase is under way"));
        let row = meter.row("r");
        assert_eq!(
            (row["ended"].as_bool(), row["phases"][1]["came"].as_u64()),
            (Some(false), Some(7))
        );
        assert_eq!(row["phases"][1]["stopped"], "no progress");
    }

    #[test]
    fn the_totals_take_the_worst_of_all_rows() {
        let row = |ended, longest: f64| {
            let phases = json!([{ "start_ms": longest * 2.0 }, {}]);
            json!({
                "ended": ended, "longest_step_ms": longest, "rss_over_counted": 1.5,
                "phases": phases,
            })
        };
        let all = totals(&[row(true, 3.5), row(false, 2.0)]);
        assert_eq!((all["rows"].as_u64(), all["ended"].as_u64()), (Some(2), Some(1)));
        assert_eq!(all["longest_step_ms_max"], 3.5);
        assert_eq!(all["start_ms_max"], 7.0);
        assert_eq!(
            (all["rss_over_counted_max"].as_f64(), &all["p999_step_ms_max"]),
            (Some(1.5), &Value::Null)
        );
    }
}
