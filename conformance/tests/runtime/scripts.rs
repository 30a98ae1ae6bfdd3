//! Plugins that are a few lines of shell, and note what they were given.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use libcni::runtime::{NetworkList, Runtime};

/// A plugin path of scripts.
pub struct Scripts {
    dir: tempfile::TempDir,
}

impl Scripts {
    /// Each script is called by its name, with `$dir` set, and has its stdin in `$conf`.
    pub fn new(scripts: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let this = Self { dir };
        for (name, body) in scripts {
            let script = format!(
                "dir=${{0%/*}} type=${{0##*/}}\nread -r conf\necho \"$CNI_COMMAND $type\" >>\"$dir/calls\"\n{body}"
            );
            testkit::script(&this.path(name), &script);
        }
        this
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn runtime(&self) -> Runtime {
        Runtime::new([self.path("")])
            .cache_dir(self.path("cache"))
            .timeout(Duration::from_secs(60))
    }

    /// The network `net` with this chain and these keys.
    pub fn list(&self, version: &str, plugins: &[&str], keys: &str) -> NetworkList {
        let plugins: Vec<String> = plugins
            .iter()
            .map(|p| format!(r#"{{"type":"{p}"}}"#))
            .collect();
        let text = format!(
            r#"{{"cniVersion":"{version}","name":"net"{keys},"plugins":[{}]}}"#,
            plugins.join(",")
        );
        NetworkList::parse(text.as_bytes(), None).unwrap()
    }

    /// The calls since the last question.
    pub fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("calls")).unwrap_or_default();
        let _ = fs::remove_file(self.path("calls"));
        text.lines().map(str::to_owned).collect()
    }

    /// What a script wrote to a file in `$dir`.
    pub fn noted(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }
}
