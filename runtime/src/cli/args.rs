//! The arguments of the command line, with their help texts.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::batch::Batch;
use super::exit;
use super::files::args::{EXPORT_HELP, Export, IMPORT_HELP, Import};
use super::list::List;
use crate::api::input::{ConsistencyName, StrategyName};

/// Nodes that hold AI memory form a federation and share it
#[derive(Debug, Parser)]
#[command(name = "continuum", version, after_long_help = exit::HELP, arg_required_else_help = true)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) verb: Verb,
}

/// The heading of the options that every verb has.
const GLOBAL: &str = "Global options";

/// Options of every verb.
#[derive(Clone, Debug, Args)]
pub(super) struct Global {
    /// API of a node, such as http://127.0.0.1:7171, or several separated by commas. Default: the running `dev`
    #[arg(long, global = true, env = "CONTINUUM_NODE", value_name = "URL", value_delimiter = ',')]
    #[arg(help_heading = GLOBAL)]
    pub(super) node: Vec<String>,
    /// How to print results
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table, help_heading = GLOBAL)]
    pub(super) output: Format,
    /// Seconds to wait for an answer
    #[arg(long, global = true, default_value_t = 15, value_name = "SECONDS", help_heading = GLOBAL)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(super) timeout: u64,
    /// For https: the authority's certificate
    #[arg(long, global = true, env = "CONTINUUM_TLS_CA", value_name = "FILE", help_heading = GLOBAL)]
    #[arg(requires_all = ["tls_cert", "tls_key"])]
    pub(super) tls_ca: Option<PathBuf>,
    /// For https: this client's certificate
    #[arg(long, global = true, env = "CONTINUUM_TLS_CERT", value_name = "FILE", help_heading = GLOBAL)]
    pub(super) tls_cert: Option<PathBuf>,
    /// For https: this client's key
    #[arg(long, global = true, env = "CONTINUUM_TLS_KEY", value_name = "FILE", help_heading = GLOBAL)]
    pub(super) tls_key: Option<PathBuf>,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people: columns, or the bare value
    Table,
    /// For programs: JSON
    Json,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Run a throw-away federation: real processes, real TLS
    #[command(args_conflicts_with_subcommands = true)]
    #[command(
        after_help = "Examples:\n  continuum dev\n  continuum dev --nodes 1 --data ./memory --api-port 8000"
    )]
    Dev(Dev),
    /// Make the federation's authority, and issue certificates
    #[command(subcommand)]
    Pki(Pki),
    /// Run a node
    #[command(subcommand)]
    Node(Node),
    /// Check and show a node's settings
    #[command(subcommand)]
    Config(Config),
    /// Create, list and delete namespaces
    #[command(subcommand)]
    Ns(Ns),
    /// Read and write values
    #[command(subcommand)]
    Kv(Kv),
    /// Read and change sets (eventual namespaces)
    #[command(subcommand)]
    Set(Set),
    /// Read and change counters (eventual namespaces)
    #[command(subcommand)]
    Counter(Counter),
    /// Read and change records, which are keys with named fields (eventual namespaces)
    #[command(subcommand)]
    Record(Record),
    /// Create the federation; show its state and its members
    #[command(subcommand)]
    Cluster(Cluster),
    /// Import rows from a file, also of MCP memory servers, Consul, etcd and WordNet
    #[command(after_help = "Examples:\n  continuum import --ns notes notes.jsonl", after_long_help = IMPORT_HELP)]
    Import(Import),
    /// Export all rows of a namespace as lines of canonical JSON, or in another format
    #[command(after_help = "Examples:\n  continuum export --ns notes > notes.jsonl", after_long_help = EXPORT_HELP)]
    Export(Export),
    /// Measure writes and reads per second and their latency
    #[command(after_help = "Examples:\n\
            \x20 continuum bench\n\
            \x20 continuum --node http://127.0.0.1:7171,http://127.0.0.1:7172 bench --clients 64 --seconds 10")]
    Bench(Bench),
    /// Print completions for a shell
    #[command(
        after_help = "Examples:\n  continuum completions bash > /etc/bash_completion.d/continuum"
    )]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the version
    #[command(after_help = "Examples:\n  continuum version -o json")]
    Version,
}

/// A throw-away federation.
#[derive(Debug, Args)]
pub(super) struct Dev {
    /// Number of nodes. Default: 3, or as many as the directory has
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=32))]
    pub(super) nodes: Option<u16>,
    /// Where their data goes: an empty directory, or one of an earlier `dev`, which then resumes. Default: a temporary
    /// directory, removed at the end
    #[arg(long, value_name = "DIR")]
    pub(super) data: Option<PathBuf>,
    /// Port of the first node's API; each further node takes the next port
    #[arg(long, default_value_t = 7171, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..=65_000))]
    pub(super) api_port: u16,
    #[command(subcommand)]
    pub(super) verb: Option<DevVerb>,
}

/// The verbs of a running `dev`.
#[derive(Clone, Copy, Debug, Subcommand)]
pub(super) enum DevVerb {
    /// Let the running `dev` start one of its nodes again; a node that runs is stopped first
    #[command(after_help = "Examples:\n  continuum dev restart 3")]
    Restart {
        /// The node's number, from 1
        #[arg(value_parser = clap::value_parser!(u16).range(1..=32))]
        number: u16,
    },
}

/// The federation's authority.
#[derive(Debug, Subcommand)]
pub(super) enum Pki {
    /// Make an authority, and with it the federation's id
    #[command(after_help = "Examples:\n  continuum pki init --out pki")]
    Init {
        /// Where to write ca.pem and ca.key
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// How many days the authority is valid
        #[arg(long, default_value_t = 3650, value_parser = clap::value_parser!(u64).range(1..=36_500))]
        days: u64,
    },
    /// Issue a certificate for a node, or with --client for a client of the API
    #[command(after_help = "Examples:\n\
            \x20 continuum pki issue --ca pki --out pki/n1 --dns localhost --ip 127.0.0.1\n\
            \x20 continuum pki issue --ca pki --out pki/ann --client ann")]
    Issue(Issue),
}

/// A certificate to issue.
#[derive(Debug, Args)]
pub(super) struct Issue {
    /// The directory that `pki init` made
    #[arg(long = "ca", value_name = "DIR")]
    pub(super) authority: PathBuf,
    /// Where to write node.pem and node.key, or client.pem and client.key
    #[arg(long, value_name = "DIR")]
    pub(super) out: PathBuf,
    /// A DNS name of the node, for clients that check names; may be repeated
    #[arg(long, value_name = "NAME")]
    pub(super) dns: Vec<String>,
    /// An IP address of the node, for clients that check names; may be repeated
    #[arg(long, value_name = "ADDRESS")]
    pub(super) ip: Vec<std::net::IpAddr>,
    /// Issue for a client with this name, not for a node
    #[arg(long, value_name = "NAME", conflicts_with_all = ["dns", "ip", "id"])]
    pub(super) client: Option<String>,
    /// Issue for this node (32 hexadecimal digits). Default: a new id
    #[arg(long, value_name = "ID")]
    pub(super) id: Option<String>,
    /// How many days the certificate is valid
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u64).range(1..=3650))]
    pub(super) days: u64,
}

/// A node.
#[derive(Debug, Subcommand)]
pub(super) enum Node {
    /// Run a node until SIGINT or SIGTERM
    #[command(after_help = "Examples:\n\
            \x20 continuum node start --config n1.toml\n\
            \x20 CONTINUUM_LOG__FORMAT=json continuum node start --config n1.toml --set peer.listen=127.0.0.1:7201")]
    Start(Start),
}

/// Sources of settings: flags override the environment, which overrides the file.
#[derive(Clone, Debug, Args)]
pub(super) struct Layers {
    /// The settings file (TOML)
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// The data directory
    #[arg(long, value_name = "DIR")]
    pub(super) data: Option<PathBuf>,
    /// The node's name for people
    #[arg(long, value_name = "NAME")]
    pub(super) name: Option<String>,
    /// Log filter, such as info or continuum_runtime=debug,warn
    #[arg(long, value_name = "FILTER")]
    pub(super) log: Option<String>,
    /// Any setting, by its path in the file; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub(super) set: Vec<(String, String)>,
}

/// A node to run.
#[derive(Debug, Args)]
pub(super) struct Start {
    #[command(flatten)]
    pub(super) layers: Layers,
    /// End together with this process, which started the node
    #[arg(long, hide = true, value_name = "PID")]
    pub(super) parent: Option<u32>,
}

/// A node's settings.
#[derive(Debug, Subcommand)]
pub(super) enum Config {
    /// Check the settings and the files that they name, as `node start` does; changes nothing
    #[command(after_help = "Examples:\n  continuum config check --config n1.toml")]
    Check(Layers),
    /// Print a settings file in which every key stands with its meaning and its default
    #[command(after_help = "Examples:\n\
            \x20 continuum config init > n1.toml\n\
            \x20 continuum config init --name n2 --set peer.listen=127.0.0.1:7102 > n2.toml")]
    Init(Layers),
    /// Show the resulting settings, and where each came from
    #[command(
        after_help = "Examples:\n  continuum config show\n  continuum config show --config n1.toml -o json"
    )]
    Show(Layers),
}

/// The verbs of `ns`.
#[derive(Debug, Subcommand)]
pub(super) enum Ns {
    /// Create a namespace
    #[command(after_help = "Examples:\n\
            \x20 continuum ns create facts --consistency strong\n\
            \x20 continuum ns create notes --consistency eventual --slots 4")]
    Create {
        /// The name: a-z, 0-9, `-`, `_`, `.`, starting with a letter
        name: String,
        /// How it is replicated
        #[arg(long, value_enum)]
        consistency: ConsistencyName,
        /// How to read a register with siblings; eventual only
        #[arg(long, value_enum)]
        strategy: Option<StrategyName>,
        /// Number of shards, fixed for ever; eventual only
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..=256))]
        slots: Option<u16>,
        /// Drop the losers of the last-writer-wins order for good; eventual only
        #[arg(long)]
        discard: bool,
    },
    /// List all namespaces, as the node knows them
    #[command(after_help = "Examples:\n  continuum ns list\n  continuum ns list --consistent")]
    List {
        /// Ask a majority of the voters
        #[arg(long)]
        consistent: bool,
    },
    /// Delete a namespace and everything in it
    #[command(after_help = "Examples:\n  continuum ns delete notes")]
    Delete {
        /// The name
        name: String,
    },
}

/// A key of a namespace.
#[derive(Clone, Debug, Args)]
pub(super) struct KeyPath {
    /// The namespace
    pub(super) ns: String,
    /// The key
    #[arg(allow_hyphen_values = true)]
    pub(super) key: String,
    /// A field of the key, instead of the key's own value
    #[arg(long, default_value = "", hide_default_value = true, allow_hyphen_values = true)]
    pub(super) field: String,
}

/// When a write is answered.
#[derive(Clone, Debug, Args)]
pub(super) struct Promise {
    /// Answer once the write is applied, durable, or replicated:N
    #[arg(long, default_value = "durable", value_name = "LEVEL")]
    pub(super) level: String,
}

/// The verbs of `kv`.
#[derive(Debug, Subcommand)]
pub(super) enum Kv {
    /// Set a value
    #[command(after_help = "Examples:\n  continuum kv put facts sky blue\n\
            \x20 continuum kv put facts photo - --media-type image/jpeg < photo.jpg")]
    Put {
        #[command(flatten)]
        key_path: KeyPath,
        /// The value; `-` reads it from standard input
        #[arg(allow_hyphen_values = true)]
        value: String,
        #[command(flatten)]
        promise: Promise,
        /// Supersede only what the read with this token saw; eventual only
        #[arg(long, value_name = "TOKEN")]
        context: Option<String>,
        /// The media type of the value, such as image/png
        #[arg(long, value_name = "TYPE")]
        media_type: Option<String>,
    },
    /// Print a value and a newline; exits with 1 when there is none
    #[command(after_help = "Examples:\n\
            \x20 continuum kv get facts sky\n\
            \x20 continuum kv get facts sky -o json\n\
            \x20 continuum kv get facts photo --raw > photo.jpg")]
    Get {
        #[command(flatten)]
        key_path: KeyPath,
        /// Print the value's own bytes and no newline
        #[arg(long)]
        raw: bool,
    },
    /// Remove a value, without --field the whole record; or all keys with a prefix
    #[command(
        after_help = "Examples:\n  continuum kv del facts sky\n  continuum kv del facts --prefix sky/"
    )]
    Del(Del),
    /// List keys in order, with their values, or how many there are
    #[command(after_help = "Examples:\n\
            \x20 continuum kv list facts --prefix s --limit 10\n\
            \x20 continuum kv list facts --prefix s --values\n\
            \x20 continuum kv list facts --count")]
    List(List),
    /// Set or remove a value if it is as expected (strong namespaces)
    #[command(after_help = "Examples:\n\
            \x20 continuum kv cas facts sky grey --expect blue\n\
            \x20 continuum kv cas facts lock me --expect-absent\n\
            \x20 continuum kv cas facts lock --delete --expect-revision 17")]
    Cas(Cas),
    /// Change several keys at once; in a strong namespace all of them or none, if all are as expected
    #[command(after_help = "Examples:\n\
            \x20 continuum kv batch facts --put sky=grey --put grass=brown --delete sun --expect sky=blue\n\
            \x20 continuum kv batch facts --put rain=wet --expect-revision rain=17 --expect-absent snow\n\
            \x20 continuum kv batch facts --file - < batch.json")]
    Batch(Batch),
}

/// A removal.
#[derive(Debug, Args)]
pub(super) struct Del {
    /// The namespace
    pub(super) ns: String,
    /// The key
    #[arg(allow_hyphen_values = true, required_unless_present = "prefix")]
    pub(super) key: Option<String>,
    /// A field of the key, instead of the whole record
    #[arg(long, default_value = "", hide_default_value = true, allow_hyphen_values = true)]
    pub(super) field: String,
    /// Remove all keys with this prefix; an empty one is that of every key
    #[arg(long, conflicts_with_all = ["key", "field"], allow_hyphen_values = true)]
    pub(super) prefix: Option<String>,
    #[command(flatten)]
    pub(super) promise: Promise,
}

/// A compare-and-set.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("expectation").required(true))]
pub(super) struct Cas {
    #[command(flatten)]
    pub(super) key_path: KeyPath,
    /// The new value
    #[arg(required_unless_present = "delete", allow_hyphen_values = true)]
    pub(super) value: Option<String>,
    /// Remove the value
    #[arg(long, conflicts_with = "value")]
    pub(super) delete: bool,
    /// Expect this value
    #[arg(long, group = "expectation", value_name = "VALUE", allow_hyphen_values = true)]
    pub(super) expect: Option<String>,
    /// Expect this revision
    #[arg(long, group = "expectation", value_name = "REVISION")]
    pub(super) expect_revision: Option<u64>,
    /// Expect no value
    #[arg(long, group = "expectation")]
    pub(super) expect_absent: bool,
}

/// The verbs of `set`.
#[derive(Debug, Subcommand)]
pub(super) enum Set {
    /// Add members
    #[command(after_help = "Examples:\n  continuum set add notes tags wet cold")]
    Add {
        #[command(flatten)]
        key_path: KeyPath,
        /// The members
        #[arg(required = true)]
        members: Vec<String>,
        #[command(flatten)]
        promise: Promise,
    },
    /// Remove members: the additions that this node has seen
    #[command(after_help = "Examples:\n  continuum set rm notes tags cold")]
    Rm {
        #[command(flatten)]
        key_path: KeyPath,
        /// The members
        #[arg(required = true)]
        members: Vec<String>,
        #[command(flatten)]
        promise: Promise,
    },
    /// Print the members, one per line
    #[command(after_help = "Examples:\n  continuum set members notes tags")]
    Members {
        #[command(flatten)]
        key_path: KeyPath,
    },
}

/// The verbs of `counter`.
#[derive(Debug, Subcommand)]
pub(super) enum Counter {
    /// Add to a counter; a negative amount subtracts
    #[command(
        after_help = "Examples:\n  continuum counter add notes visits 5\n  continuum counter add notes visits -2"
    )]
    Add {
        #[command(flatten)]
        key_path: KeyPath,
        /// The amount
        #[arg(allow_negative_numbers = true)]
        amount: i64,
        #[command(flatten)]
        promise: Promise,
    },
    /// Print the value
    #[command(after_help = "Examples:\n  continuum counter get notes visits")]
    Get {
        #[command(flatten)]
        key_path: KeyPath,
    },
}

/// The verbs of `record`.
#[derive(Debug, Subcommand)]
pub(super) enum Record {
    /// Print all fields of a key
    #[command(after_help = "Examples:\n  continuum record get wordnet n00001740")]
    Get {
        /// The namespace
        ns: String,
        /// The key
        #[arg(allow_hyphen_values = true)]
        key: String,
    },
    /// Change fields of a key in one atomic write
    #[command(
        after_help = "Examples:\n  continuum record put notes rain --put mood=calm --add tag=wet --count seen=1"
    )]
    Put {
        /// The namespace
        ns: String,
        /// The key
        #[arg(allow_hyphen_values = true)]
        key: String,
        /// Set a register; this and the options below may be repeated
        #[arg(long, value_name = "FIELD=VALUE", value_parser = pair)]
        put: Vec<(String, String)>,
        /// Add a member to a set
        #[arg(long, value_name = "FIELD=MEMBER", value_parser = pair)]
        add: Vec<(String, String)>,
        /// Remove a member from a set
        #[arg(long, value_name = "FIELD=MEMBER", value_parser = pair)]
        remove: Vec<(String, String)>,
        /// Add to a counter
        #[arg(long, value_name = "FIELD=N", value_parser = count)]
        count: Vec<(String, i64)>,
        /// Remove what this node has seen of a field
        #[arg(long, value_name = "FIELD")]
        delete: Vec<String>,
        #[command(flatten)]
        promise: Promise,
    },
}

/// The verbs of `cluster`.
#[derive(Debug, Subcommand)]
pub(super) enum Cluster {
    /// Create the federation, once, on one node
    #[command(after_help = "Examples:\n\
            \x20 continuum --node http://127.0.0.1:7181 cluster init --voter 127.0.0.1:7102 --voter 127.0.0.1:7103")]
    Init {
        /// Peer address of another first voter; may be repeated
        #[arg(long, value_name = "HOST:PORT")]
        voter: Vec<String>,
    },
    /// Show the node's own state: groups, shards, memory
    #[command(
        after_help = "Examples:\n  continuum cluster status\n  continuum cluster status -o json"
    )]
    Status,
    /// Check that the node serves everything and sees all members healthy; else exits with 3 or 1
    #[command(
        after_help = "Examples:\n  continuum cluster health\n  continuum cluster health --wait 60"
    )]
    Health {
        /// Seconds to wait until it is so
        #[arg(long, value_name = "SECONDS", default_value_t = 0)]
        wait: u64,
    },
    /// Show the members and their health, as the node sees them
    #[command(after_help = "Examples:\n  continuum cluster members")]
    Members,
    /// Replace the key that seals the contexts of reads; twice, and no older context is valid
    #[command(after_help = "Examples:\n  continuum cluster rotate-key")]
    RotateKey,
}

/// A measurement.
#[derive(Debug, Args)]
pub(super) struct Bench {
    /// Numbers of clients to measure, each client with its own connection
    #[arg(long, value_delimiter = ',', default_values_t = [1, 64, 256])]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(super) clients: Vec<u16>,
    /// Seconds for each number of clients
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(super) seconds: u64,
    /// Bytes of each value
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=262_144))]
    pub(super) value_bytes: u32,
    /// Loads to measure
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Load::ALL)]
    pub(super) load: Vec<Load>,
    /// Writes in one batch
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(super) batch: u16,
}

/// A load to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Load {
    /// Puts in a strong namespace
    Strong,
    /// Puts in an eventual namespace
    Eventual,
    /// Batches of puts in an eventual namespace
    Batch,
    /// Gets in a strong namespace
    StrongGet,
    /// Gets in an eventual namespace
    EventualGet,
}

impl Load {
    const ALL: [Self; 5] =
        [Self::Strong, Self::Eventual, Self::Batch, Self::StrongGet, Self::EventualGet];
}

/// Parses `NAME=VALUE`.
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("{text:?} has no `=`"))?;
    Ok((name.into(), value.into()))
}

/// Parses `NAME=NUMBER`.
fn count(text: &str) -> Result<(String, i64), String> {
    let (name, value) = pair(text)?;
    value.parse().map(|value| (name, value)).map_err(|_| format!("{value:?} is not a whole number"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_command_is_consistent() {
        Cli::command().debug_assert();
    }

    /// All commands without subcommands.
    fn leaves(command: &clap::Command) -> Vec<clap::Command> {
        let mut found = Vec::new();
        for inner in command.get_subcommands() {
            if inner.has_subcommands() {
                found.extend(leaves(inner));
            } else {
                found.push(inner.clone());
            }
        }
        found
    }

    #[test]
    fn every_verb_has_examples_that_parse() {
        for verb in leaves(&Cli::command()) {
            let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
            let examples: Vec<&str> =
                help.lines().filter_map(|line| line.trim().split("continuum ").nth(1)).collect();
            assert!(!examples.is_empty(), "{} has no example", verb.get_name());
            for example in examples {
                let words = example.split(['<', '>', '|']).next().unwrap_or_default();
                let parsed = parse(&format!("continuum {words}"));
                assert!(parsed.is_ok(), "{example}: {:?}", parsed.err());
            }
        }
    }

    #[test]
    fn options_are_accepted_before_or_after_the_verb() {
        for line in [
            "continuum --node http://a:1 kv get n k",
            "continuum kv get n k --node http://a:1 -o json",
        ] {
            assert_eq!(
                parse(line).map(|cli| cli.global.node).ok(),
                Some(vec!["http://a:1".into()])
            );
        }
    }

    #[test]
    fn values_may_start_with_a_hyphen() {
        assert!(parse("continuum kv put n k -").is_ok());
        assert!(parse("continuum counter add n k -5").is_ok());
    }

    #[test]
    fn keys_may_start_with_a_hyphen() {
        for line in [
            "continuum kv get n -k --raw",
            "continuum kv get n -- -k",
            "continuum kv put n -k v --level applied",
            "continuum kv put --level applied n -k -v",
            "continuum kv del n -k -o json",
            "continuum kv del n --prefix -k",
            "continuum kv list n --prefix -k",
            "continuum kv cas n -k v --expect-absent",
            "continuum kv get n --field -f -k",
            "continuum set members n -k",
            "continuum set add n -k wet --level applied",
            "continuum set add n k -- -wet",
            "continuum counter add n -k -5",
            "continuum counter get n --k",
            "continuum record get n -k",
        ] {
            assert!(parse(line).is_ok(), "{line}: {:?}", parse(line).err());
        }
        let parsed = parse("continuum kv put n -k v --level applied").map(|cli| cli.verb);
        let Ok(Verb::Kv(Kv::Put { key_path, value, promise, .. })) = parsed else {
            panic!("another verb")
        };
        assert_eq!(
            (key_path.key, value, promise.level),
            ("-k".into(), "v".into(), "applied".into())
        );
    }

    #[test]
    fn a_removal_names_a_key_or_a_prefix() {
        assert!(parse("continuum kv del n").is_err());
        assert!(parse("continuum kv del n k --prefix p").is_err());
        assert!(parse("continuum kv del n --prefix p --field f").is_err());
        assert!(parse("continuum kv del n --prefix p").is_ok());
    }

    #[test]
    fn a_cas_expects_exactly_one_thing() {
        assert!(parse("continuum kv cas n k v").is_err());
        assert!(parse("continuum kv cas n k v --expect a --expect-absent").is_err());
        assert!(parse("continuum kv cas n k v --delete --expect a").is_err());
        assert!(parse("continuum kv cas n k --expect a").is_err());
        assert!(parse("continuum kv cas n k --delete --expect a").is_ok());
    }

    #[test]
    fn wrong_usage_exits_with_2() {
        let error = parse("continuum kv get").err();
        assert_eq!(error.map(|error| error.exit_code()), Some(i32::from(exit::USAGE)));
    }
}
