//! resolv.conf(5), as much of it as a CNI result can say.
use std::fs;
use std::path::Path;

use super::StoreError;
use crate::spec::Dns;

pub(super) fn read(path: &Path) -> Result<Dns, StoreError> {
    let bytes = fs::read(path).map_err(|source| StoreError::io("read resolvConf", path, source))?;
    Ok(parse(&String::from_utf8_lossy(&bytes)))
}

fn parse(text: &str) -> Dns {
    let mut dns = Dns::default();
    for line in text.lines().map(str::trim) {
        if line.starts_with(['#', ';']) {
            continue;
        }
        let mut words = line.split_whitespace().map(str::to_owned);
        let (Some(key), Some(first)) = (words.next(), words.next()) else {
            continue;
        };
        match key.as_str() {
            "nameserver" => dns.nameservers.push(first),
            "domain" => dns.domain = first,
            "search" => dns.search.extend([first].into_iter().chain(words)),
            "options" => dns.options.extend([first].into_iter().chain(words)),
            _ => {}
        }
    }
    dns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_the_reference_reads_it() {
        let dns = parse(
            "# comment\n;another\n\nnameserver 192.0.2.1 ignored\n  nameserver\t192.0.2.2\r\n\
             domain a.example\ndomain b.example\nsearch x.example y.example\nsearch z.example\n\
             options ndots:5\noptions rotate  timeout:1\nnameserver\nsortlist 10.0.0.0\n",
        );
        assert_eq!(dns.nameservers, ["192.0.2.1", "192.0.2.2"]);
        assert_eq!(dns.domain, "b.example");
        assert_eq!(dns.search, ["x.example", "y.example", "z.example"]);
        assert_eq!(dns.options, ["ndots:5", "rotate", "timeout:1"]);
    }
}
