//! Networks in a directory such as `/etc/cni/net.d`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{ConfError, NetworkList, PluginConf};
use crate::spec::json::Node;

/// One file of a configuration directory and what it holds.
#[derive(Debug)]
pub struct Scanned {
    /// The file.
    pub path: PathBuf,
    /// The network, or why there is none.
    pub outcome: Result<NetworkList, ConfError>,
}

const LISTS: &[&str] = &["conflist"];
const SINGLES: &[&str] = &["conf", "json"];
const ANY: &[&str] = &["conf", "conflist", "json"];

impl NetworkList {
    /// Finds a network by name: all `.conflist` files in the order of their names, then all `.conf` and `.json` files.
    ///
    /// The reference gives up at the first file that it cannot read, whatever it holds; here such a file only shows up
    /// in the error if the network is found in no other.
    ///
    /// # Errors
    /// [`ConfError::NotFound`] with all that is there; [`ConfError::Read`] if the directory cannot be read (a missing
    /// one is an empty one).
    pub fn load(dir: &Path, name: &str) -> Result<Self, ConfError> {
        let (mut found, mut broken) = (Vec::new(), Vec::new());
        for extensions in [LISTS, SINGLES] {
            for path in files(dir, extensions)? {
                match read(&path) {
                    Ok(list) if list.name == name => return Ok(list),
                    Ok(list) => found.push(list.name),
                    Err(source) => broken.push(ConfError::File {
                        path,
                        source: Box::new(source),
                    }),
                }
            }
        }
        Err(ConfError::NotFound {
            name: name.to_owned(),
            dir: dir.to_owned(),
            found,
            broken,
        })
    }

    /// Every candidate of a directory in the order of containerd, CRI-O and podman: all three kinds of files sorted by
    /// name together. containerd takes the first that can be read as the cluster's network.
    ///
    /// ```
    /// use libcni::runtime::NetworkList;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let dir = dir.path();
    /// std::fs::write(dir.join("10-pods.conflist"), r#"{"name": "pods", "plugins": [{"type": "bridge"}]}"#)?;
    /// std::fs::write(dir.join("05-torn.conflist"), "{")?;
    /// for file in NetworkList::scan(dir)? {
    ///     match file.outcome {
    ///         Ok(list) => println!("{}: {}", file.path.display(), list.name),
    ///         Err(e) => println!("{}: {e}", file.path.display()),
    ///     }
    /// }
    /// assert_eq!(NetworkList::load(dir, "pods")?.plugins[0].kind, "bridge");
    /// # Ok::<(), libcni::runtime::ConfError>(())
    /// ```
    ///
    /// # Errors
    /// The directory cannot be read. A missing one is an empty one.
    pub fn scan(dir: &Path) -> io::Result<Vec<Scanned>> {
        let scanned = files(dir, ANY)?.into_iter().map(|path| Scanned {
            outcome: read(&path),
            path,
        });
        Ok(scanned.collect())
    }
}

/// Regular files (and links to them) with one of these extensions, sorted by name.
fn files(dir: &Path, extensions: &[&str]) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let wanted = path
            .extension()
            .is_some_and(|found| extensions.iter().any(|wanted| found == *wanted));
        if wanted && !path.is_dir() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn read(path: &Path) -> Result<NetworkList, ConfError> {
    let bytes = fs::read(path)?;
    let mut list = if path.extension().is_some_and(|e| e == "conflist") {
        NetworkList::parse(&bytes, path.parent())?
    } else {
        NetworkList::parse_single(&bytes)?
    };
    list.source = Some(path.to_owned());
    Ok(list)
}

/// The plugins of a network's folder.
pub(super) fn folder(dir: &Path) -> Result<Vec<PluginConf>, ConfError> {
    let read = |path: &Path| -> Result<PluginConf, ConfError> {
        Ok(PluginConf::read(&Node::parse(&fs::read(path)?)?, "")?)
    };
    let paths = files(dir, &["conf"])?;
    let plugins = paths.into_iter().map(|path| {
        read(&path).map_err(|source| ConfError::File {
            path,
            source: Box::new(source),
        })
    });
    plugins.collect()
}
