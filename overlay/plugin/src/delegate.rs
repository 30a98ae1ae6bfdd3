//! The plugin that does the work: this suite's `bridge` in this process, any other by running it.

use std::path::PathBuf;

use bridge::Bridge;
use libcni::plugin::{Call, delegate, suite};
use libcni::record;
use libcni::spec::error::{CniError, Code};
use libcni::spec::json::Fields;
use libcni::spec::{CniResult, Node, Verb};

/// The one that needs no exec.
const OWN: &str = "bridge";
/// Of an executable's whole work.
const PHASE: &str = "delegate";

/// A delegate and what it is given.
#[derive(Debug)]
pub struct Delegate {
    how: How,
    /// Its configuration.
    pub conf: Vec<u8>,
}

#[derive(Debug)]
enum How {
    InProcess,
    Executable(PathBuf),
}

impl Delegate {
    /// Looks it up in `CNI_PATH`, by the `type` of its configuration.
    ///
    /// # Errors
    /// It is not there: code 7. It cannot be read: code 5.
    pub fn new(call: &Call, conf: Vec<u8>) -> Result<Self, CniError> {
        let kind = kind(&conf)?;
        let file = delegate::find(&kind, &call.env.path)?;
        let how = if kind == OWN && suite::is_own(&file, OWN)? {
            How::InProcess
        } else {
            How::Executable(file)
        };
        Ok(Self { how, conf })
    }

    /// As [`Delegate::new`], but what `bridge` made can be taken away even where its executable is gone.
    ///
    /// # Errors
    /// As there.
    pub fn for_release(call: &Call, conf: Vec<u8>) -> Result<Self, CniError> {
        let own = kind(&conf)? == OWN;
        match Self::new(call, conf.clone()) {
            Err(_) if own => Ok(Self {
                how: How::InProcess,
                conf,
            }),
            other => other,
        }
    }

    /// Attaches.
    ///
    /// # Errors
    /// Its own; or it printed no result.
    pub fn add(&self, call: &Call) -> Result<CniResult, CniError> {
        let file = match &self.how {
            How::InProcess => {
                let result = call.delegate::<Bridge>(Verb::Add, &self.conf)?;
                return Ok(result.unwrap_or_default());
            }
            How::Executable(file) => file,
        };
        record::phase(PHASE);
        let printed = delegate::exec(file, Verb::Add, &self.conf)?;
        let result = Node::parse(&printed).map_err(|e| {
            let msg = format!("{} printed no result: {e}", file.display());
            CniError::new(Code::Internal, msg)
        })?;
        CniResult::parse(&result, call.version())
    }

    /// Any other verb.
    ///
    /// # Errors
    /// Its own.
    pub fn run(&self, call: &Call, verb: Verb) -> Result<(), CniError> {
        match &self.how {
            How::InProcess => call.delegate::<Bridge>(verb, &self.conf).map(drop),
            How::Executable(file) => {
                record::phase(PHASE);
                delegate::exec(file, verb, &self.conf).map(drop)
            }
        }
    }

    /// Whether an ADD of it that fails leaves nothing, by steps to undo that are this process's.
    pub fn undoes(&self) -> bool {
        matches!(self.how, How::InProcess)
    }

    /// Whether its GC does something: the reference's succeeds and frees nothing.
    ///
    /// # Errors
    /// Its executable cannot be read: code 5.
    pub fn frees(&self) -> Result<bool, CniError> {
        match &self.how {
            How::InProcess => Ok(true),
            How::Executable(file) => match file.file_name().and_then(|name| name.to_str()) {
                Some(name) => suite::is_own(file, name),
                None => Ok(false),
            },
        }
    }
}

fn kind(conf: &[u8]) -> Result<String, CniError> {
    let node = Node::parse(conf)?;
    Ok(Fields::of(&node, "")?.str("type")?.unwrap_or_default())
}
