//! Plans of bugs that were found and fixed: each is run and judged again.

use std::fs;
use std::path::Path;

use continuum_sim::plan::Plan;
use continuum_sim::run;

#[test]
fn no_fixed_bug_returns() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("plans/regressions");
    let mut plans = 0;
    for entry in fs::read_dir(folder).expect("the folder of plans") {
        let path = entry.expect("an entry").path();
        let text = fs::read_to_string(&path).expect("a plan");
        let plan = Plan::parse(&text).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
        let violation = run::run(&plan).violation;
        assert!(violation.is_none(), "{}: {violation:?}", path.display());
        plans += 1;
    }
    assert!(plans > 0, "there are plans");
}
