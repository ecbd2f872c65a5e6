//! Planted bugs and the scenarios that expose them. This module does not know any scenario.

use std::panic::{AssertUnwindSafe, catch_unwind};

use continuum_core::mark::instrument;

/// Runs each scenario without a planted bug, and then each one with its own. The active mutant is global to the
/// process, so a test binary calls this in its only test.
///
/// # Panics
///
/// If a scenario fails without a planted bug, or passes with its own.
pub fn expose(scenarios: &[(&str, fn())]) {
    for (_, scenario) in scenarios {
        scenario();
    }
    std::panic::set_hook(Box::new(|_| ()));
    let survivors: Vec<&str> = scenarios
        .iter()
        .filter(|(name, scenario)| {
            assert!(instrument::activate(Some(name)), "{name} is no mutant");
            catch_unwind(AssertUnwindSafe(scenario)).is_ok()
        })
        .map(|(name, _)| *name)
        .collect();
    let _ = std::panic::take_hook();
    instrument::activate(None);
    assert!(survivors.is_empty(), "no scenario fails with {survivors:?}");
}
