//! A record as an entry of systemd's journal: one datagram (systemd's "Native Journal Protocol").

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use super::Record;

/// Where journald listens.
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";
/// How long journald may leave its queue full.
const PATIENCE: Duration = Duration::from_millis(100);
/// `LOG_ERR` and `LOG_INFO` of syslog(3).
const ERROR: &str = "3";
const INFO: &str = "6";

/// Sends one entry. `line` goes along whole, so that the journal can be read as a file of records.
///
/// # Errors
/// Nobody listens, or journald does not keep up.
pub(super) fn send(socket: &Path, record: &Record, line: &str) -> io::Result<()> {
    let failed = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", socket.display()));
    let sender = UnixDatagram::unbound()?;
    sender.set_write_timeout(Some(PATIENCE))?;
    sender
        .send_to(&entry(record, line), socket)
        .map_err(failed)?;
    Ok(())
}

fn entry(record: &Record, line: &str) -> Vec<u8> {
    let mut entry = Vec::with_capacity(2048);
    let mut put = |name: &str, value: &str| {
        if !value.is_empty() {
            // The form with a length: whatever the value holds, it cannot begin another field.
            entry.extend_from_slice(name.as_bytes());
            entry.push(b'\n');
            entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
            entry.extend_from_slice(value.as_bytes());
            entry.push(b'\n');
        }
    };
    let failed = record.error.as_ref();
    put("MESSAGE", &record.to_string());
    put("PRIORITY", if failed.is_some() { ERROR } else { INFO });
    put("SYSLOG_IDENTIFIER", "podwire");
    put("CNI_COMMAND", &record.verb);
    put("CNI_PLUGIN", &record.plugin);
    put("CNI_NETWORK", &record.network);
    put("CNI_CONTAINERID", &record.container);
    put("CNI_IFNAME", &record.ifname);
    put("CNI_DURATION_US", &record.total_us.to_string());
    if let Some(e) = failed {
        put("CNI_ERROR_CODE", &e.code.as_u32().to_string());
    }
    if let Some(trace) = &record.trace {
        put("TRACE_ID", &trace.trace_id);
        put("SPAN_ID", &trace.span_id);
    }
    put("CNI_RECORD", line);
    entry
}
