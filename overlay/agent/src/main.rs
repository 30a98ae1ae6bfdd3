//! `overlayd`: see docs/overlayd.md.

fn main() -> anyhow::Result<()> {
    Ok(())
}
