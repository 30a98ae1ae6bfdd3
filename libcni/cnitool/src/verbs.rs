//! ADD, CHECK, DEL and STATUS, as the reference's cnitool does them.

use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use libcni::firewall::sha512;
use libcni::runtime::Attach;
use libcni::spec::Node;

use crate::cli::{Place, Target};
use crate::show;

/// Attaches, and prints the result as a plugin would.
pub fn add(place: &Place, target: &Target) -> Result<()> {
    let list = place.network(&target.network)?;
    let result = place.runtime().add(&list, &attach(target)?)?;
    show::text(&result.to_json(list.version)?);
    Ok(())
}

/// Compares.
pub fn check(place: &Place, target: &Target) -> Result<()> {
    let list = place.network(&target.network)?;
    Ok(place.runtime().check(&list, &attach(target)?)?)
}

/// Detaches.
pub fn del(place: &Place, target: &Target) -> Result<()> {
    let list = place.network(&target.network)?;
    Ok(place.runtime().del(&list, &attach(target)?)?)
}

/// Asks.
pub fn status(place: &Place, network: &str) -> Result<()> {
    Ok(place.runtime().status(&place.network(network)?)?)
}

fn attach(target: &Target) -> Result<Attach> {
    let netns = absolute(Path::new(&target.netns))?;
    let ifname = match (&target.ifname, std::env::var("CNI_IFNAME")) {
        (Some(ifname), _) => ifname.clone(),
        (None, Ok(ifname)) => ifname,
        (None, Err(_)) => "eth0".into(),
    };
    ensure!(
        !ifname.is_empty(),
        "interface name is empty: CNI_IFNAME is set, but to nothing"
    );
    Ok(Attach {
        container_id: container_id(&netns),
        netns: netns.to_string_lossy().into_owned(),
        ifname,
        args: args(target.args.as_deref().unwrap_or_default())?,
        capability_args: capability_args(target.capability_args.as_deref())?,
    })
}

/// `cnitool-` and 20 hex digits of the path's SHA-512: the same namespace is the same container each time.
fn container_id(netns: &Path) -> String {
    format!("cnitool-{}", sha512::hex(&netns.to_string_lossy(), 20))
}

/// Absolute and without `.`, `..` and doubled slashes, by the text alone, as the reference: a namespace's path may
/// be gone by the time of DEL.
fn absolute(path: &Path) -> Result<PathBuf> {
    let path = std::path::absolute(path).context("the namespace's path")?;
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                clean.pop();
            }
            Component::CurDir => {}
            other => clean.push(other),
        }
    }
    Ok(clean)
}

fn args(text: &str) -> Result<Vec<(String, String)>> {
    let pairs = text
        .split(';')
        .filter(|pair| !text.is_empty() || !pair.is_empty());
    pairs
        .map(|pair| match pair.split_once('=') {
            Some((key, value)) if !key.is_empty() && !value.is_empty() => {
                Ok((key.to_owned(), value.to_owned()))
            }
            _ => {
                bail!("invalid CNI_ARGS pair {pair:?}: KEY=VALUE is wanted, pairs separated by ';'")
            }
        })
        .collect()
}

fn capability_args(text: Option<&str>) -> Result<Node> {
    let text = text.filter(|text| !text.is_empty()).unwrap_or("{}");
    let node = Node::parse(text.as_bytes()).context("CAP_ARGS is not JSON")?;
    match node {
        Node::Object(_) => Ok(node),
        other => bail!(
            "CAP_ARGS is {}: a JSON object is wanted, as {{\"portMappings\": [...]}}",
            other.kind()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn container_ids_are_the_references() {
        let id = |path: &str| container_id(&absolute(Path::new(path)).unwrap());
        assert_eq!(id("/var/run/netns/blue"), "cnitool-296747069b8a02dc4e2a");
        assert_eq!(
            id("/var/run//x/../netns/./blue/"),
            "cnitool-296747069b8a02dc4e2a"
        );
    }

    #[test]
    fn arguments() {
        assert_eq!(args("").unwrap(), []);
        let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
        assert_eq!(
            args("A=b;C=d=e").unwrap(),
            [pair("A", "b"), pair("C", "d=e")]
        );
        for wrong in ["A", "A=", "=b", "A=b;", ";"] {
            let error = args(wrong).unwrap_err().to_string();
            assert!(
                error.starts_with("invalid CNI_ARGS pair"),
                "{wrong}: {error}"
            );
        }
    }

    #[test]
    fn capability_arguments() {
        assert_eq!(capability_args(None).unwrap(), Node::Object(Vec::new()));
        assert_eq!(capability_args(Some("")).unwrap(), Node::Object(Vec::new()));
        assert!(capability_args(Some(r#"{"mac": "02:00:00:00:00:01"}"#)).is_ok());
        for wrong in ["[]", "null", "7", "{", "x"] {
            assert!(capability_args(Some(wrong)).is_err(), "{wrong}");
        }
    }
}
