//! Prometheus' text format 0.0.4, translated from OpenMetrics, which is what the library writes.
//!
//! Most agents read only 0.0.4: it names a counter's family with `_total`, and has no type `info`, no units and no
//! end mark. Samples are the same.

use std::fmt::Write as _;

/// The form of the page of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' text format 0.0.4.
    Text,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Format {
    /// The form that an `Accept` header asks for: OpenMetrics when it is named with at least the weight of plain text.
    #[must_use]
    pub fn accepted(header: &str) -> Self {
        let weight = |media: &str| {
            let of = header.split(',').filter_map(|range| {
                let mut parts = range.split(';').map(str::trim);
                let is_it = parts.next()?.eq_ignore_ascii_case(media);
                let weight = parts.find_map(|part| part.strip_prefix("q=")?.parse::<f64>().ok());
                is_it.then(|| weight.unwrap_or(1.0))
            });
            of.fold(0.0, f64::max)
        };
        let asked = weight("application/openmetrics-text");
        if asked > 0.0 && asked >= weight("text/plain") { Self::OpenMetrics } else { Self::Text }
    }

    /// The media type of the page.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Translates a page.
pub(super) fn translate(open: &str) -> String {
    let mut page = String::with_capacity(open.len());
    // The help of a family stands before its type, which decides its name.
    let mut help = None;
    for line in open.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
        } else if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            let (end, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                other => ("", other),
            };
            if let Some((_, words)) = help.take() {
                let _ = writeln!(page, "# HELP {name}{end} {words}");
            }
            let _ = writeln!(page, "# TYPE {name}{end} {kind}");
        } else if !line.starts_with('#') {
            page.push_str(line);
            page.push('\n');
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_older_format_lacks_is_changed() {
        let open = "# HELP a_build The build.\n# TYPE a_build info\na_build_info{version=\"1\"} 1\n\
                    # HELP a_n_seconds Time.\n# TYPE a_n_seconds counter\n# UNIT a_n_seconds seconds\n\
                    a_n_seconds_total{why=\"# HELP\"} 2\n# HELP g G.\n# TYPE g gauge\ng 1.5\n# EOF\n";
        let text = "# HELP a_build_info The build.\n# TYPE a_build_info gauge\na_build_info{version=\"1\"} 1\n\
                    # HELP a_n_seconds_total Time.\n# TYPE a_n_seconds_total counter\n\
                    a_n_seconds_total{why=\"# HELP\"} 2\n# HELP g G.\n# TYPE g gauge\ng 1.5\n";
        assert_eq!(translate(open), text);
    }

    #[test]
    fn openmetrics_is_for_those_who_ask_for_it() {
        let of = Format::accepted;
        for plain in ["", "*/*", "text/plain", "text/plain;version=0.0.4;q=1,*/*;q=0.1"] {
            assert_eq!(of(plain), Format::Text, "{plain}");
        }
        // As Prometheus 2 and 3 send it.
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.6,\
                          application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        assert_eq!(of(prometheus), Format::OpenMetrics);
        assert_eq!(of("application/openmetrics-text"), Format::OpenMetrics);
        assert_eq!(of("text/plain, application/openmetrics-text;q=0.1"), Format::Text);
        assert_eq!(of("application/openmetrics-text;q=0"), Format::Text);
    }
}
