//! The cases that come with the program, so that it works from anywhere.

use anyhow::Result;

use super::Cases;

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        /// Name and text of each file of `cases/differential`.
        pub(super) const FILES: &[(&str, &str)] = &[
            $(($name, include_str!(concat!("../../cases/differential/", $name)))),*
        ];
    };
}

files!(
    "bridge.json",
    "differences.json",
    "host-local.json",
    "loopback.json"
);

/// All of them.
///
/// # Errors
/// A mistake in one.
pub(super) fn cases() -> Result<Cases> {
    let files = FILES
        .iter()
        .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
    Cases::of(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_file_is_forgotten() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/cases/differential");
        let listed = std::fs::read_dir(dir).unwrap();
        let mut names: Vec<String> = listed
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert!(
            FILES
                .iter()
                .map(|(name, _)| *name)
                .eq(names.iter().map(String::as_str))
        );
        assert!(cases().unwrap().cases.len() > 100);
    }
}
