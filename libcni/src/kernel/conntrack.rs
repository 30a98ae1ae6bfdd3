//! Conntrack entries. (being written)
