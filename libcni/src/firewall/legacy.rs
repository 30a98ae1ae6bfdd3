//! What the Go plugins left.
