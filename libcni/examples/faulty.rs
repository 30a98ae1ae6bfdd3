//! A plugin that goes wrong as its configuration says, for the tests of the edge (`tests/edge.rs`): it panics, in
//! the pod's namespace or on the node, or hangs; each time with one step done that has to be undone.

use std::time::Duration;

use libcni::plugin::{self, About, Call, Plugin, Undo, signal};
use libcni::spec::json::Fields;
use libcni::spec::{Attachment, CniError, CniResult, Version};

struct Faulty;

impl Plugin for Faulty {
    const ABOUT: About = About {
        name: "faulty",
        summary: "goes wrong",
        versions: &Version::ALL,
    };

    fn add(call: &'static Call) -> Result<CniResult, CniError> {
        let fault = Fields::of(&call.node, "")?.str("fault")?;
        let mut undo = Undo::new();
        undo.push("the step", || {
            let here = std::fs::read_link("/proc/thread-self/ns/net").map_err(|e| e.to_string())?;
            eprintln!("undone in {}", here.display());
            Ok(())
        });
        match fault.as_deref() {
            Some("panic") => panic!("as the configuration says"),
            Some("panic in the pod") => call
                .netns()?
                .enter(|| panic!("as the configuration says"))?,
            Some("hang") => {
                eprintln!("hanging");
                while signal::check().is_ok() {
                    std::thread::park_timeout(Duration::from_millis(20));
                }
                signal::check()?;
            }
            _ => undo.commit(),
        }
        Ok(CniResult::default())
    }
    fn del(_: &Call) -> Result<(), CniError> {
        Ok(())
    }
    fn check(_: &Call) -> Result<(), CniError> {
        Ok(())
    }
    fn gc(_: &Call, valid: &[Attachment]) -> Result<(), CniError> {
        eprintln!("{} valid", valid.len());
        Ok(())
    }
    fn status(_: &Call) -> Result<(), CniError> {
        Ok(())
    }
}

fn main() {
    std::process::exit(plugin::run::<Faulty>())
}
