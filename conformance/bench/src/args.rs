//! The command line.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

pub const HELP: &str = "\
Times CNI plugins against the reference plugins and against the kernel's own cost, in one interleaved run.

  bench [--bin-dir DIR] [--reference-dir DIR] [--quick] [--check] [--json FILE] [--markdown] [--only PART]...

  --bin-dir DIR        the plugins to judge (default dist/bin)
  --reference-dir DIR  the plugins to compare with (default /usr/lib/cni)
  --work-dir DIR       where stores are kept for the run: a real file system (default /var/tmp)
  --quick              fewer rounds: under 45 s, for CI
  --check              exit 1 when a bound does not hold or could not be measured
  --json FILE          also write every figure to FILE
  --markdown           print the tables as Markdown
  --only PART          only this part; may be repeated. PART is one of: sequential burst store crowd dual record
                       footprint overlay traffic

Runs in namespaces of its own and needs no root. Compare ratios, not times, between machines and runs.
";

/// What the user asked for.
#[derive(Debug)]
pub struct Options {
    pub bin_dir: PathBuf,
    pub reference_dir: PathBuf,
    pub work_dir: PathBuf,
    pub json: Option<PathBuf>,
    pub quick: bool,
    pub check: bool,
    pub markdown: bool,
    pub only: Vec<Part>,
}

/// A group of rows measured together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Sequential,
    Burst,
    Store,
    Crowd,
    Dual,
    Record,
    Footprint,
    Overlay,
    Traffic,
}

impl Options {
    /// `None` when help was asked for.
    pub fn parse(args: impl IntoIterator<Item = String>) -> Result<Option<Self>> {
        let mut options = Self {
            bin_dir: "dist/bin".into(),
            reference_dir: "/usr/lib/cni".into(),
            work_dir: "/var/tmp".into(),
            json: None,
            quick: false,
            check: false,
            markdown: false,
            only: Vec::new(),
        };
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().with_context(|| format!("{arg} needs a value"));
            match arg.as_str() {
                "--bin-dir" => options.bin_dir = value()?.into(),
                "--reference-dir" => options.reference_dir = value()?.into(),
                "--work-dir" => options.work_dir = value()?.into(),
                "--json" => options.json = Some(value()?.into()),
                "--only" => options.only.push(Part::parse(&value()?)?),
                "--quick" => options.quick = true,
                "--check" => options.check = true,
                "--markdown" => options.markdown = true,
                "-h" | "--help" => return Ok(None),
                _ => bail!("unknown argument {arg:?}; see --help"),
            }
        }
        Ok(Some(options))
    }

    pub fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    /// One of two counts: rounds of a full run, or of a quick one.
    pub fn rounds(&self, full: usize, quick: usize) -> usize {
        if self.quick { quick } else { full }
    }
}

impl Part {
    fn parse(name: &str) -> Result<Self> {
        Ok(match name {
            "sequential" => Self::Sequential,
            "burst" => Self::Burst,
            "store" => Self::Store,
            "crowd" => Self::Crowd,
            "dual" => Self::Dual,
            "record" => Self::Record,
            "footprint" => Self::Footprint,
            "overlay" => Self::Overlay,
            "traffic" => Self::Traffic,
            _ => bail!("no part is called {name:?}; see --help"),
        })
    }
}
