//! The page around the picture: one HTML file that needs no other file, so it can be sent, kept and opened anywhere.
//!
//! The page loads no script and no font, and escapes all text that varies. `svg` draws the picture itself.

use std::fmt::Write as _;

use crate::scene::words::cut;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("page.js");

/// The content of a page.
#[derive(Debug)]
pub(crate) struct Page<'a> {
    pub(crate) oracle: &'a str,
    pub(crate) what: &'a str,
    pub(crate) facts: Vec<(&'a str, String)>,
    pub(crate) svg: String,
    pub(crate) toml: String,
    pub(crate) steps: Vec<String>,
}

/// Escapes a text, so that it is text in an element and in an attribute.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' => out.push('\n'),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// The HTML of a page.
pub(crate) fn render(page: &Page<'_>) -> String {
    let oracle = escape(page.oracle);
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>{oracle}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <header>\n<h1>{oracle} <span>is broken</span></h1>\n<p class=\"what\">{}</p>\n<dl>\n",
        escape(&cut(page.what, 600))
    );
    for (name, value) in &page.facts {
        let _ = writeln!(out, "<div><dt>{}</dt><dd>{}</dd></div>", escape(name), escape(value));
    }
    let _ = write!(
        out,
        "</dl>\n{}</header>\n<main id=\"picture\" class=\"hide-faint\">\n{}</main>\n",
        legend(),
        page.svg
    );
    fold(&mut out, "The plan", &page.toml);
    fold(&mut out, "The last steps", &page.steps.join("\n"));
    let _ = write!(out, "<script>\n{SCRIPT}</script>\n</body>\n</html>\n");
    out
}

fn fold(out: &mut String, title: &str, text: &str) {
    let _ = write!(
        out,
        "<details>\n<summary>{}</summary>\n<pre>{}</pre>\n</details>\n",
        escape(title),
        escape(text)
    );
}

/// The legend: the meaning of the shapes, and switches that hide them.
fn legend() -> String {
    let mut out = "<nav>\n".to_owned();
    let filters = [
        ("raft", "raft", true),
        ("replication", "replication", true),
        ("gossip", "gossip", true),
        ("requests", "requests", true),
        ("disk", "disk", true),
        ("faint", "routine and other traffic", false),
    ];
    for (class, words, on) in filters {
        let checked = if on { " checked" } else { "" };
        let _ = writeln!(
            out,
            "<label class=\"key {class}\"><input type=\"checkbox\" value=\"{class}\"{checked}> \
             <i></i>{words}</label>"
        );
    }
    let keys = [
        ("leader", "leader"),
        ("candidate", "candidate"),
        ("follower", "follower"),
        ("cross-key", "lost"),
        ("twice-key", "duplicate"),
        ("window-key", "fault"),
        ("gone-key", "write lost in a crash"),
    ];
    for (class, words) in keys {
        let _ = writeln!(out, "<span class=\"key {class}\"><i></i>{words}</span>");
    }
    out.push_str("</nav>\n<p class=\"hint\">Time runs downward and is folded where nothing relevant happens. \
        t is a term, 5@t2 is entry 5 of term 2, c0.14 is operation 14 of client 0, n1#3 is the third write of node 1. \
        Hover over a shape for its details.</p>\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_varies_never_becomes_a_tag() {
        assert_eq!(escape("<b a='1'>&\"\u{7}\n"), "&lt;b a=&#39;1&#39;&gt;&amp;&quot;\u{fffd}\n");
        let page = Page {
            oracle: "<i>1",
            what: "<i>2",
            facts: vec![("<i>3", "<i>4".to_owned())],
            svg: String::new(),
            toml: "<i>5".to_owned(),
            steps: vec!["<i>6".to_owned()],
        };
        let html = render(&page);
        for number in 1..=6 {
            assert!(html.contains(&format!("&lt;i&gt;{number}")), "{number}");
            assert!(!html.contains(&format!("<i>{number}")), "{number}");
        }
    }
}
