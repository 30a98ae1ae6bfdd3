//! What each verb does and leaves on disk.
use super::*;

mod add;
mod del;
mod gc;
mod status;

const V4: &str = r#""subnet": "10.1.2.0/24""#;
const SMALL: &str = r#""subnet": "10.1.2.0/29""#; // .2 to .6
const DUAL: &str = r#""ranges": [[{"subnet": "10.1.2.0/24"}], [{"subnet": "fd00:1::/64"}]]"#;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}
