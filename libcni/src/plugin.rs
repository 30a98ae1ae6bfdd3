//! The plugin side: from environment and stdin to one verb, and from its outcome to stdout.
//!
//! A plugin implements [`Plugin`] and calls [`run`]; it parses nothing of the protocol, prints nothing and
//! never exits. The order of the checks, their codes and texts are those of the reference (spec section 2,
//! "Execution Protocol"), but the guard against working on the node's own namespace comes before the work.

pub mod delegate;
pub mod gather;
pub mod identity;
pub mod ipam;
pub mod signal;
mod start;
pub mod suite;
pub mod undo;

use std::io::{Read, Write};
use std::path::Path;
use std::sync::atomic::Ordering;

use nix::errno::Errno;

pub use gather::Gather;
pub use undo::Undo;

use crate::kernel::netns::{Netns, NetnsError};
use crate::nl::{NlError, ROUTE, STOP, Socket};
use crate::record;
use crate::spec::args::{self, CallEnv, Invocation, ProcessEnv, Verb};
use crate::spec::conf::{self, NetConf};
use crate::spec::error::{CniError, Code};
use crate::spec::json::Node;
use crate::spec::result::CniResult;
use crate::spec::{Attachment, NetName, Version};

/// Exit statuses.
const OK: i32 = 0;
const FAILED: i32 = 1;
const BAD_USAGE: i32 = 2;

/// The verbs of one plugin. No default methods: a plugin that forgets GC or STATUS does not compile.
pub trait Plugin {
    /// Its name, purpose and versions.
    const ABOUT: About;

    /// Attaches, and says what it made.
    ///
    /// # Errors
    /// Everything done so far was taken back.
    fn add(call: &'static Call) -> Result<CniResult, CniError>;
    /// Detaches; what is gone already is no error.
    ///
    /// # Errors
    /// Only if another try may help.
    fn del(call: &Call) -> Result<(), CniError>;
    /// Compares what ADD made with what is there.
    ///
    /// # Errors
    /// The first difference.
    fn check(call: &Call) -> Result<(), CniError>;
    /// Frees what belongs to none of the attachments in `valid`.
    ///
    /// # Errors
    /// All failures; it goes on past each.
    fn gc(call: &Call, valid: &[Attachment]) -> Result<(), CniError>;
    /// Whether ADD could succeed now.
    ///
    /// # Errors
    /// Codes 50 and 51.
    fn status(call: &Call) -> Result<(), CniError>;
}

/// What a plugin says of itself.
#[derive(Debug)]
pub struct About {
    /// Name of the executable.
    pub name: &'static str,
    /// What it does, in one line, for `--help`.
    pub summary: &'static str,
    /// Versions it speaks.
    pub versions: &'static [Version],
}

/// One call: the environment and the configuration, checked as far as the protocol goes.
#[derive(Debug)]
pub struct Call {
    /// The environment.
    pub env: CallEnv,
    /// Keys common to all plugins.
    pub conf: NetConf,
    /// The whole configuration.
    pub node: Node,
    /// The very bytes of stdin, for delegates.
    pub stdin: Vec<u8>,
    netns: Result<Netns, NetnsError>,
}

// === impl Call ===

impl Call {
    /// What [`run`] makes of an environment and stdin, for a pod without namespace.
    ///
    /// # Errors
    /// As the plugin would print them.
    #[cfg(feature = "fuzzing")]
    pub fn of(env: CallEnv, stdin: &[u8], supported: &[Version]) -> Result<Self, CniError> {
        let node = conf::decode(stdin)?;
        let conf = NetConf::read(&node, env.verb, supported)?;
        Ok(Self {
            env,
            conf,
            node,
            stdin: stdin.to_vec(),
            netns: Netns::open(Path::new("")),
        })
    }

    /// The network's name.
    #[must_use]
    pub fn network(&self) -> &NetName {
        &self.conf.name
    }

    /// The configuration's version.
    #[must_use]
    pub fn version(&self) -> Version {
        self.conf.cni_version
    }

    /// The attachment that ADD, DEL or CHECK is about.
    ///
    /// # Errors
    /// Code 4 for the other verbs, which have none.
    pub fn attachment(&self) -> Result<&Attachment, CniError> {
        self.env
            .attachment
            .as_ref()
            .ok_or_else(|| CniError::new(Code::InvalidEnvironment, "this verb names no attachment"))
    }

    /// `CNI_NETNS` as given; results name it so.
    #[must_use]
    pub fn sandbox(&self) -> &str {
        self.env.netns.as_deref().unwrap_or_default()
    }

    /// The pod's namespace.
    ///
    /// # Errors
    /// Code 8 if it is missing or no namespace.
    pub fn netns(&self) -> Result<&Netns, CniError> {
        self.netns.as_ref().map_err(|e| self.bad_netns(e))
    }

    /// The pod's namespace if it still exists: `None` when the path is empty, gone, or a leftover that is no
    /// namespace any more. For DEL.
    ///
    /// # Errors
    /// Any other failure to open it, code 8.
    pub fn netns_if_alive(&self) -> Result<Option<&Netns>, CniError> {
        match &self.netns {
            Ok(netns) => Ok(Some(netns)),
            Err(
                NetnsError::Missing { .. }
                | NetnsError::NotNetns { .. }
                | NetnsError::OtherKind { .. },
            ) => Ok(None),
            Err(e) => Err(self.bad_netns(e)),
        }
    }

    /// Has another plugin of this suite do a verb as this one's delegate, in this process: what running its executable
    /// would do, without an exec. `stdin` is what it would get. Its steps to undo and its phases become ours.
    ///
    /// # Errors
    /// Its own, as it would print them.
    pub fn delegate<P: Plugin>(
        &self,
        verb: Verb,
        stdin: &[u8],
    ) -> Result<Option<CniResult>, CniError> {
        let node = conf::decode(stdin)?;
        let conf = NetConf::read(&node, verb, P::ABOUT.versions)?;
        let env = CallEnv {
            verb,
            ..self.env.clone()
        };
        let netns = Netns::open(Path::new(self.sandbox()));
        // For ever, as the first one.
        perform::<P>(Box::leak(Box::new(Self {
            env,
            conf,
            node,
            stdin: stdin.to_vec(),
            netns,
        })))
    }

    /// `prevResult`, which CHECK cannot do without.
    ///
    /// # Errors
    /// Code 7 if it is missing or cannot be read.
    pub fn required_prev(&self) -> Result<CniResult, CniError> {
        self.conf.prev()?.ok_or_else(|| {
            CniError::new(Code::InvalidConfig, "Required prevResult missing")
                .with_details("CHECK compares with the result of ADD, which the runtime passes on")
        })
    }

    /// A route socket on the node, for a thread that is not on a visit to the pod.
    ///
    /// # Errors
    /// The kernel's own.
    pub fn node_socket(&self) -> Result<Socket, NlError> {
        let opened = self.netns.as_ref().ok().and_then(Netns::take_home_socket);
        opened.map_or_else(|| Socket::open(ROUTE), Ok)
    }

    fn bad_netns(&self, e: &NetnsError) -> CniError {
        CniError::new(
            Code::InvalidNetns,
            format!("failed to open netns {:?}: {e}", self.sandbox()),
        )
        .with_details("is the pod's sandbox still running?")
    }
}

// === the edge ===

/// The whole life of a plugin process.
#[must_use]
pub fn run<P: Plugin>() -> i32 {
    start::prepare();
    if let Some(flag) = std::env::args().nth(1) {
        return about(&P::ABOUT, &flag);
    }
    record::begin(P::ABOUT.name);
    signal::install();
    #[allow(clippy::exit)] // the way out of a panic that does not unwind
    std::panic::set_hook(Box::new(|info| {
        undo::run();
        let e = CniError::new(
            Code::Internal,
            format!("{} panicked: {info}", P::ABOUT.name),
        )
        .with_details("this is a bug; what was done has been undone as far as possible");
        let _ = print(&e.to_json());
        record::end(Err(&e));
        std::process::exit(FAILED);
    }));
    let (text, mut outcome) = match dispatch::<P>() {
        Ok(text) => (text, Ok(())),
        Err(e) => (e.to_json(), Err(e)),
    };
    match print(&text) {
        Ok(()) => undo::forget(),
        Err(e) => {
            // The runtime will never know what was made for it.
            undo::run();
            let why = format!("cannot write to stdout: {e}: {text}");
            log(format_args!("{}: {why}", P::ABOUT.name));
            outcome = Err(CniError::new(Code::Io, why));
        }
    }
    record::end(outcome.as_ref().copied());
    match outcome {
        Ok(()) => OK,
        Err(_) => FAILED,
    }
}

/// A line for the node's log. `eprintln!` would panic if nobody reads stderr, in the middle of the work.
pub fn log(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// One write, so that a reader sees all or nothing: `std::io::stdout` would write line by line.
fn print(text: &str) -> std::io::Result<()> {
    let stdout = std::io::stdout();
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        match nix::unistd::write(&stdout, rest) {
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(Errno::EINTR) if !STOP.load(Ordering::Relaxed) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn dispatch<P: Plugin>() -> Result<String, CniError> {
    let env = match Invocation::read(&ProcessEnv)? {
        Invocation::About => {
            log(format_args!("{}", banner(&P::ABOUT).trim_end()));
            return Ok(String::new());
        }
        Invocation::Unknown(command) => {
            conf::network_name(&conf::decode(&read_stdin()?)?)?;
            return Err(args::unknown_command(&command));
        }
        Invocation::Call(env) if env.verb == Verb::Version => return Ok(versions(&P::ABOUT)),
        Invocation::Call(env) => env,
    };
    let stdin = read_stdin()?;
    let node = conf::decode(&stdin)?;
    let recorded = record::configure(&node);
    let conf = NetConf::read(&node, env.verb, P::ABOUT.versions)?;
    // As for all other keys: a config that went wrong since ADD must not keep anything reserved.
    if env.verb != Verb::Del {
        recorded?;
    }
    let netns = Netns::open(Path::new(env.netns.as_deref().unwrap_or_default()));
    if let Ok(netns) = &netns
        && !env.netns_override
        && env.attachment.is_some()
        && netns.is_current()
    {
        return Err(CniError::new(
            Code::InvalidNetns,
            "plugin's netns and netns from CNI_NETNS should not be the same",
        )
        .with_details("nothing was done; set CNI_NETNS_OVERRIDE=1 if this is what you want"));
    }
    // For ever: a step to undo may need it, also after a panic.
    let call: &'static Call = Box::leak(Box::new(Call {
        env,
        conf,
        node,
        stdin,
        netns,
    }));
    match perform::<P>(call)? {
        Some(result) => result.to_json(call.version()),
        None => Ok(String::new()),
    }
}

/// The verb itself; what ADD made.
fn perform<P: Plugin>(call: &'static Call) -> Result<Option<CniResult>, CniError> {
    match call.env.verb {
        Verb::Add => return P::add(call).map(Some),
        Verb::Del => P::del(call)?,
        Verb::Check => P::check(call)?,
        Verb::Status => P::status(call)?,
        Verb::Gc => match &call.conf.valid_attachments {
            Some(valid) => P::gc(call, valid)?,
            // Nobody said who is valid: freeing everything would be a guess.
            None => log(format_args!(
                "{}: GC without cni.dev/valid-attachments frees nothing",
                P::ABOUT.name
            )),
        },
        Verb::Version => unreachable!("answered before stdin is read"),
    }
    Ok(None)
}

fn read_stdin() -> Result<Vec<u8>, CniError> {
    let mut bytes = Vec::with_capacity(4096);
    std::io::stdin()
        .lock()
        .read_to_end(&mut bytes)
        .map_err(|e| CniError::new(Code::Io, format!("error reading from stdin: {e}")))?;
    Ok(bytes)
}

fn versions(about: &About) -> String {
    let versions = about.versions.iter();
    let supported: Vec<String> = versions.map(|v| v.as_str().to_owned()).collect();
    let answer = Node::obj()
        .put("cniVersion", Version::CURRENT.as_str())
        .put("supportedVersions", supported.as_slice());
    format!("{}\n", answer.build().write_compact())
}

fn banner(about: &About) -> String {
    let supported: Vec<&str> = about.versions.iter().map(|v| v.as_str()).collect();
    format!(
        "CNI {} plugin v{} (podwire)\nCNI protocol versions supported: {}\n",
        about.name,
        env!("CARGO_PKG_VERSION"),
        supported.join(", ")
    )
}

/// `--help` and `--version`, for people.
fn about(about: &About, flag: &str) -> i32 {
    let text = match flag {
        "--version" | "-V" => format!("{} {} (podwire)\n", about.name, env!("CARGO_PKG_VERSION")),
        "--help" | "-h" => format!(
            "{name}: {summary}\n\n\
             A CNI plugin: runtimes call it with CNI_COMMAND (ADD, DEL, CHECK, GC, STATUS or VERSION) and the other\n\
             CNI_* variables in the environment and the network configuration as JSON on stdin. It answers with a\n\
             result or an error object on stdout; exit status 1 is an error.\n\n\
             By hand:\n  \
             CNI_COMMAND=VERSION {name}\n  \
             CNI_COMMAND=ADD CNI_CONTAINERID=test CNI_NETNS=/run/netns/test CNI_IFNAME=eth0 CNI_PATH=/opt/cni/bin \\\n    \
             {name} < network.json\n\n\
             Keys, files and error codes: docs/{name}.md\n{banner}",
            name = about.name,
            summary = about.summary,
            banner = banner(about),
        ),
        _ => {
            log(format_args!(
                "{}: unknown argument {flag:?}; try --help",
                about.name
            ));
            return BAD_USAGE;
        }
    };
    match print(&text) {
        Ok(()) => OK,
        Err(_) => FAILED,
    }
}
