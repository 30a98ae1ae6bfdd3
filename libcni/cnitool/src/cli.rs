//! The command line, and how it ends.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use libcni::runtime::{NetworkList, Runtime, RuntimeError};
use libcni::spec::error::{CniError, Code};

use crate::{gc, records, show, verbs};

/// Attach network namespaces by hand, see what is attached, collect what nobody owns any more.
#[derive(Debug, Parser)]
#[command(
    name = "cnitool",
    version,
    max_term_width = 110,
    disable_help_subcommand = true
)]
#[command(
    after_help = "Exit status: 0 done, 1 not done (the reason is on stderr, or on stdout with --json).\n\
    Networks and plugins are found where NETCONFPATH and CNI_PATH say."
)]
pub struct Cli {
    #[command(flatten)]
    pub place: Place,
    /// Print JSON: lists as one array, errors as CNI error objects on stdout.
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    command: Command,
}

/// Where things are.
#[derive(Debug, Args)]
pub struct Place {
    /// Directory of network configurations. NETCONFPATH, or /etc/cni/net.d.
    #[arg(long, global = true, value_name = "DIR")]
    conf_dir: Option<PathBuf>,
    /// Directories of plugins, separated by colons. CNI_PATH, or /opt/cni/bin.
    #[arg(long, global = true, value_name = "DIRS")]
    plugin_path: Option<String>,
    /// Directory of the result cache, which runtimes built on the reference library share.
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        default_value = "/var/lib/cni"
    )]
    pub cache_dir: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Attach a network namespace to a network, and print the result.
    Add(Target),
    /// Compare an attachment with what ADD made.
    Check(Target),
    /// Detach; what is gone already is no error.
    Del(Target),
    /// Free what nobody owns. With --from-cri or --from-netns: what is dead on this node. Without, as the reference:
    /// every attachment of NETWORK in the cache.
    Gc(Gc),
    /// Ask the plugins of a network whether ADD could succeed now.
    Status {
        /// The network's name.
        network: String,
        /// Ignored; the reference's cnitool wants one.
        netns: Option<String>,
    },
    /// Print the spec versions that plugins speak.
    Version {
        /// Names of plugins; without any, those of all networks.
        plugins: Vec<String>,
    },
    /// List attachments in the cache, whichever runtime made them, and DELs that halted half-way.
    List {
        /// Only of this network.
        network: Option<String>,
    },
    /// List configuration files in the order runtimes take them, and what is wrong with each.
    Networks,
    /// Show the records of the last operations (see docs/records.md).
    LastOps(LastOps),
}

/// What add, check and del work on.
#[derive(Debug, Args)]
pub struct Target {
    /// The network's name.
    pub network: String,
    /// Path of the network namespace, /run/netns/NAME for one made by `ip netns add`.
    pub netns: String,
    /// The interface's name in the namespace. CNI_IFNAME, or eth0.
    #[arg(short, long)]
    pub ifname: Option<String>,
    /// Capability arguments, a JSON object: '{"portMappings": [...]}'.
    #[arg(long, env = "CAP_ARGS", value_name = "JSON")]
    pub capability_args: Option<String>,
    /// Arguments for all plugins: 'K=V;K=V'.
    #[arg(long, env = "CNI_ARGS", value_name = "ARGS")]
    pub args: Option<String>,
}

/// What is collected.
#[derive(Debug, Args)]
pub struct Gc {
    /// The network's name. When collecting: by default the first in the directory, which is the one that containerd
    /// and CRI-O take.
    #[arg(required_unless_present_any = ["from_cri", "from_netns"])]
    pub network: Option<String>,
    /// Ignored; the reference's cnitool wants one.
    pub netns: Option<String>,
    /// Attachments of pods that this runtime does not know are dead: containerd's or CRI-O's socket.
    #[arg(long, value_name = "SOCKET", conflicts_with = "from_netns")]
    pub from_cri: Option<PathBuf>,
    /// Attachments whose namespace was in this directory, as /run/netns, and is gone are dead. Those of other directories
    /// are left alone.
    #[arg(long, value_name = "DIR")]
    pub from_netns: Option<PathBuf>,
    /// Only show what would be freed, and why.
    #[arg(long)]
    pub dry_run: bool,
    /// Leave alone what is younger: it may be a pod just being added. s, m or h; longer than any ADD may take.
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration)]
    pub grace: Duration,
}

/// Which records are shown.
#[derive(Debug, Args)]
pub struct LastOps {
    /// The file that PODWIRE_RECORD, or the key `record` of a network, names.
    #[arg(env = "PODWIRE_RECORD", value_name = "FILE")]
    pub file: PathBuf,
    /// How many.
    #[arg(short = 'n', long, default_value_t = 20)]
    pub count: usize,
}

/// Parses, works, tells.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            let failed = e.use_stderr();
            let _ = e.print();
            return if failed {
                ExitCode::FAILURE
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if cli.json {
                show::line(&as_cni_error(&error).to_json());
            } else {
                eprintln!("{error:#}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    match &cli.command {
        Command::Add(target) => verbs::add(&cli.place, target),
        Command::Check(target) => verbs::check(&cli.place, target),
        Command::Del(target) => verbs::del(&cli.place, target),
        Command::Gc(gc) => gc::gc(cli, gc),
        Command::Status { network, .. } => verbs::status(&cli.place, network),
        Command::Version { plugins } => show::versions(cli, plugins),
        Command::List { network } => show::list(cli, network.as_deref()),
        Command::Networks => show::networks(cli),
        Command::LastOps(options) => records::last_ops(cli, options),
    }
}

/// The object a plugin would have printed.
fn as_cni_error(error: &anyhow::Error) -> CniError {
    let code = error
        .downcast_ref::<RuntimeError>()
        .and_then(RuntimeError::code);
    CniError::new(code.unwrap_or(Code::Internal), format!("{error:#}"))
}

// === impl Place ===

impl Place {
    /// The directory of network configurations.
    pub fn conf_dir(&self) -> PathBuf {
        let option = self.conf_dir.clone().map(PathBuf::into_os_string);
        setting(option, "NETCONFPATH", "/etc/cni/net.d").into()
    }

    /// A runtime at this place.
    pub fn runtime(&self) -> Runtime {
        let option = self.plugin_path.clone().map(OsString::from);
        let path = setting(option, "CNI_PATH", "/opt/cni/bin");
        let dirs = path.as_bytes().split(|byte| *byte == b':');
        let dirs = dirs.map(|dir| PathBuf::from(OsStr::from_bytes(dir)));
        Runtime::new(dirs).cache_dir(&self.cache_dir)
    }

    /// The network of that name.
    pub fn network(&self, name: &str) -> anyhow::Result<NetworkList> {
        Ok(NetworkList::load(&self.conf_dir(), name)?)
    }
}

/// The option, the variable, or what is usual. A variable that is set to nothing is not set.
fn setting(option: Option<OsString>, variable: &str, usual: &str) -> OsString {
    option
        .or_else(|| std::env::var_os(variable).filter(|value| !value.is_empty()))
        .unwrap_or_else(|| usual.into())
}

/// `30s`, `5m`, `1h`; a bare number is seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => (text, "s"),
    };
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err("a number of s, m or h, as 30s".into()),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| "a number of s, m or h, as 30s")?;
    Ok(Duration::from_secs(number.saturating_mul(seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn times() {
        let seconds = |text| duration(text).map(|d| d.as_secs());
        assert_eq!(seconds("90"), Ok(90));
        assert_eq!(seconds("30s"), Ok(30));
        assert_eq!(seconds("5m"), Ok(300));
        assert_eq!(seconds("2h"), Ok(7200));
        for wrong in ["", "m", "5d", "-1s", "1.5h", "99999999999999999999"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
