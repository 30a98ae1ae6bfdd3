use std::fs;

use super::*;

fn parse(text: &str) -> Result<NetworkList, String> {
    NetworkList::parse(text.as_bytes(), None).map_err(|e| e.to_string())
}

fn with(keys: &str) -> Result<NetworkList, String> {
    parse(&format!(
        r#"{{"name":"n","plugins":[{{"type":"t"}}]{keys}}}"#
    ))
}

/// CNI 1.1.0 section 1 "Version considerations", and what the reference makes of it.
#[test]
fn the_latest_version_that_exists_is_chosen() {
    for (keys, want) in [
        ("", "0.1.0"),
        (r#","cniVersion":"""#, "0.1.0"),
        (r#","cniVersion":"0.4.0""#, "0.4.0"),
        (
            r#","cniVersion":"0.4.0","cniVersions":["0.3.1","1.0.0","0.4.0"]"#,
            "1.0.0",
        ),
        (r#","cniVersion":"1.1.0","cniVersions":["1.0.0"]"#, "1.1.0"),
        (r#","cniVersions":["1.0.0"]"#, "1.0.0"),
        (
            r#","cniVersion":"1.2.0","cniVersions":["1.3.0","1.0.0"]"#,
            "1.0.0",
        ),
        (r#","cniVersion":"0.4.0","cniVersions":["1.0.1"]"#, "0.4.0"),
    ] {
        assert_eq!(with(keys).unwrap().version.as_str(), want, "{keys}");
    }
    for (keys, words) in [
        (
            r#","cniVersion":"1.2.0""#,
            "\"1.2.0\"; allowed: a version from 0.1.0 to 1.1.0",
        ),
        (r#","cniVersion":"1.0""#, "\"1.0\""),
        (r#","cniVersion":7"#, "\"cniVersion\" is a number"),
        (
            r#","cniVersions":["x"]"#,
            "failed to convert major version part",
        ),
        (r#","cniVersions":"1.0.0""#, "an array"),
    ] {
        let error = with(keys).unwrap_err();
        assert!(error.contains(words), "{keys}: {error}");
    }
}

#[test]
fn flags_may_be_strings() {
    let list = with(r#","disableCheck":"TRUE","disableGC":true,"loadOnlyInlinedPlugins":"false""#);
    let list = list.unwrap();
    assert_eq!(
        (
            list.disable_check,
            list.disable_gc,
            list.load_only_inlined_plugins
        ),
        (true, true, false)
    );
    assert!(
        with(r#","disableGC":"yes""#)
            .unwrap_err()
            .contains("\"disableGC\" is a string")
    );
    assert!(
        with(r#","disableCheck":1"#)
            .unwrap_err()
            .contains("true or false")
    );
}

#[test]
fn what_is_no_list() {
    for (text, words) in [
        ("", "is not JSON"),
        ("[]", "an array"),
        (r#"{"plugins":[{"type":"t"}]}"#, "\"name\" is missing"),
        (r#"{"name":"n"}"#, "no plugin configs"),
        (r#"{"name":"n","plugins":[]}"#, "no plugin configs"),
        (
            r#"{"name":"n","plugins":[{}]}"#,
            "\"plugins[0].type\" is missing",
        ),
        (
            r#"{"name":"n","plugins":[{"type":"t"},{"type":""}]}"#,
            "\"plugins[1].type\" is missing",
        ),
        (
            r#"{"name":"n","plugins":[{"type":"t","capabilities":{"mac":"yes"}}]}"#,
            "plugins[0].capabilities.mac",
        ),
    ] {
        let error = parse(text).unwrap_err();
        assert!(error.contains(words), "{text}: {error}");
    }
}

/// The bytes are those the reference caches for a `.conf`.
#[test]
fn a_single_plugin_becomes_a_list() {
    let conf =
        br#"{"type":"bridge","name":"one","cniVersion":"0.3.1","capabilities":{"mac":true}}"#;
    let list = NetworkList::parse_single(conf).unwrap();
    assert_eq!(
        String::from_utf8_lossy(list.bytes()),
        r#"{"cniVersion":"0.3.1","name":"one","plugins":[{"capabilities":{"mac":true},"cniVersion":"0.3.1","name":"one","type":"bridge"}]}"#
    );
    assert_eq!(
        (
            list.plugins[0].kind.as_str(),
            list.plugins[0].name.as_deref()
        ),
        ("bridge", Some("one"))
    );
    let list = br#"{"name":"n","plugins":[{"type":"t"}]}"#;
    let error = NetworkList::parse_single(list).unwrap_err();
    assert!(error.to_string().contains("\"type\" is missing"), "{error}");
}

fn files(all: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in all {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    dir
}

const A: &str = r#"{"name":"a","plugins":[{"type":"list"}]}"#;

#[test]
fn lists_are_found_before_single_plugins() {
    let dir = files(&[
        ("10-a.conf", r#"{"name":"a","type":"conf"}"#),
        ("20-a.json", r#"{"name":"a","type":"json"}"#),
        ("30-a.conflist", A),
        (
            "40-a.conflist",
            r#"{"name":"a","plugins":[{"type":"later"}]}"#,
        ),
        ("50-b.json", r#"{"name":"b","type":"json"}"#),
        (
            "60-c.conflist.bak",
            r#"{"name":"c","plugins":[{"type":"t"}]}"#,
        ),
        ("70-d.conflist/x", ""),
    ]);
    let load = |name| NetworkList::load(dir.path(), name);
    let a = load("a").unwrap();
    assert_eq!(a.plugins[0].kind, "list");
    assert_eq!(
        a.source.as_deref(),
        Some(dir.path().join("30-a.conflist").as_path())
    );
    assert_eq!(load("b").unwrap().plugins[0].kind, "json");
    let error = load("c").unwrap_err().to_string();
    assert!(error.ends_with("there are: a, a, a, a, b"), "{error}");
    assert!(
        error.starts_with("no net configuration with name \"c\" in /"),
        "{error}"
    );
    // As containerd takes them: by name, whatever they are.
    let scanned = NetworkList::scan(dir.path()).unwrap();
    let kinds: Vec<String> = scanned
        .into_iter()
        .map(|file| file.outcome.unwrap().plugins[0].kind.clone())
        .collect();
    assert_eq!(kinds, ["conf", "json", "list", "later", "json"]);
}

/// The reference stops at the first broken file (cni-behaviour, defect 28).
#[test]
fn a_broken_file_is_only_in_the_way_of_itself() {
    let dir = files(&[
        ("00-torn.conflist", "{\"name\":"),
        ("05-empty.conflist", ""),
        ("10-a.conflist", A),
    ]);
    assert!(NetworkList::load(dir.path(), "a").is_ok());
    let error = NetworkList::load(dir.path(), "b").unwrap_err().to_string();
    for word in [
        "00-torn.conflist",
        "05-empty.conflist",
        "is not JSON",
        "there are: a",
    ] {
        assert!(error.contains(word), "{error}");
    }
    let outcomes = NetworkList::scan(dir.path()).unwrap();
    let broken: Vec<bool> = outcomes.iter().map(|file| file.outcome.is_err()).collect();
    assert_eq!(broken, [true, true, false]);
}

#[test]
fn no_directory_is_an_empty_one() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("net.d");
    for dir in [dir.path(), &missing] {
        let error = NetworkList::load(dir, "a").unwrap_err().to_string();
        assert_eq!(
            error,
            format!("no net configurations found in {}", dir.display())
        );
        assert!(NetworkList::scan(dir).unwrap().is_empty());
    }
}

/// CNI 1.1.0 section 1: `<dir>/<network>/*.conf` unless `loadOnlyInlinedPlugins`.
#[test]
fn the_networks_folder_adds_plugins() {
    let dir = files(&[
        ("a.conflist", A),
        ("a/20-second.conf", r#"{"type":"second"}"#),
        ("a/10-first.conf", r#"{"type":"first"}"#),
        ("a/30-other.json", r#"{"type":"other"}"#),
        ("b.conflist", r#"{"name":"b"}"#),
        ("b/only.conf", r#"{"type":"only"}"#),
        (
            "c.conflist",
            r#"{"name":"c","loadOnlyInlinedPlugins":true,"plugins":[{"type":"t"}]}"#,
        ),
        ("c/no.conf", r#"{"type":"no"}"#),
        ("d.conflist", r#"{"name":"d","plugins":[{"type":"t"}]}"#),
        ("d/bad.conf", r#"{"typ":"bad"}"#),
        ("e.conflist", r#"{"name":"../a","plugins":[{"type":"t"}]}"#),
    ]);
    let kinds = |name: &str| -> Vec<String> {
        let list = NetworkList::load(dir.path(), name).unwrap();
        list.plugins.into_iter().map(|plugin| plugin.kind).collect()
    };
    assert_eq!(kinds("a"), ["list", "first", "second"]);
    assert_eq!(kinds("b"), ["only"]);
    assert_eq!(kinds("c"), ["t"]);
    assert_eq!(kinds("../a"), ["t"], "not led out of the directory");
    let error = NetworkList::load(dir.path(), "d").unwrap_err().to_string();
    assert!(error.contains("d/bad.conf \"type\" is missing"), "{error}");
}
