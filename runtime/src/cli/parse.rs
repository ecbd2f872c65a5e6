//! Parses the arguments: hides options where they mean nothing, and proposes the verb that was meant.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgMatches, Command, CommandFactory as _, FromArgMatches as _};

use super::args::Cli;

/// Verbs that ask no node. Only `--output` of the global options means something there.
const LOCAL: [&str; 6] = ["completions", "config", "dev", "node", "pki", "version"];

/// A verb is proposed when it differs by so few letters: added, left out, replaced or exchanged with the next.
const LETTERS_MAX: usize = 2;

/// The command with its help as people see it.
pub(super) fn command() -> Command {
    let mut command = Cli::command();
    // Gives the global options to every verb.
    command.build();
    command.mut_subcommands(|verb| {
        let is_local = LOCAL.contains(&verb.get_name());
        brief(verb, is_local)
    })
}

/// Leaves the global options out of the short help, and those that name a node out of all help of a local verb.
fn brief(verb: Command, is_local: bool) -> Command {
    let globals: Vec<String> = Cli::command()
        .get_arguments()
        .filter(|argument| argument.is_global_set())
        .map(|argument| argument.get_id().to_string())
        .collect();
    let verb = verb.mut_args(|argument| {
        if !globals.iter().any(|global| argument.get_id() == global.as_str()) {
            return argument;
        }
        let is_hidden = is_local && argument.get_id() != "output";
        argument.hide_short_help(true).hide(is_hidden)
    });
    verb.mut_subcommands(|inner| brief(inner, is_local))
}

/// Parses the arguments of a process.
pub(super) fn parse(words: &[OsString]) -> Result<Cli, clap::Error> {
    let mut command = command();
    let matches = command.try_get_matches_from_mut(words);
    let parsed = matches.and_then(|matches: ArgMatches| Cli::from_arg_matches(&matches));
    parsed.map_err(|error| propose(error, &command, words))
}

/// Adds the verb that was meant to an error that names an unknown one.
fn propose(mut error: clap::Error, command: &Command, words: &[OsString]) -> clap::Error {
    let Some(ContextValue::String(given)) = error.get(ContextKind::InvalidSubcommand).cloned()
    else {
        return error;
    };
    let is_proposed = error.get(ContextKind::SuggestedSubcommand).is_some();
    if error.kind() != ErrorKind::InvalidSubcommand || is_proposed {
        return error;
    }
    // The verb above the unknown one.
    let mut above = command;
    for word in words.iter().filter_map(|word| word.to_str()) {
        above = above.find_subcommand(word).unwrap_or(above);
    }
    let letters = |verb: &Command| strsim::osa_distance(&given, verb.get_name());
    let nearest = above.get_subcommands().min_by_key(|verb| letters(verb));
    if let Some(nearest) = nearest.filter(|verb| letters(verb) <= LETTERS_MAX) {
        let names = ContextValue::Strings(vec![nearest.get_name().to_owned()]);
        error.insert(ContextKind::SuggestedSubcommand, names);
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(line: &str) -> String {
        let words: Vec<OsString> = line.split_whitespace().map(Into::into).collect();
        parse(&words).map(|_| ()).expect_err("help or a mistake").to_string()
    }

    #[test]
    fn a_mistyped_verb_gets_a_proposal() {
        for (line, meant) in [
            ("continuum kv gte a b", "'get'"),
            ("continuum kvv get a b", "'kv'"),
            ("continuum cluster stauts", "'status'"),
            ("continuum --node http://a:1 ns lsit", "'list'"),
        ] {
            let error = error(line);
            assert!(
                error.contains("similar subcommand") && error.contains(meant),
                "{line}: {error}"
            );
        }
        assert!(!error("continuum kv frobnicate").contains("similar"));
    }

    #[test]
    fn global_options_are_in_the_long_help_of_verbs_that_ask_nodes() {
        let mentions = |line: &str, option: &str| error(line).contains(option);
        assert!(mentions("continuum ns list --help", "--node"));
        assert!(mentions("continuum ns list --help", "Global options"));
        assert!(!mentions("continuum ns list -h", "--node"));
        for local in ["config check", "pki init", "completions", "node start", "version", "dev"] {
            assert!(!mentions(&format!("continuum {local} --help"), "--tls-ca"), "{local}");
            assert!(mentions(&format!("continuum {local} --help"), "--output"), "{local}");
        }
    }

    #[test]
    fn arguments_are_read_as_before() {
        let words: Vec<OsString> =
            "continuum kv get n k --node http://a:1".split(' ').map(Into::into).collect();
        let cli = parse(&words).expect("sound arguments");
        assert_eq!(cli.global.node, ["http://a:1"]);
    }
}
