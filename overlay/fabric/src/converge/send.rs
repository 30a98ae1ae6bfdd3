//! Sending the difference, in as few system calls as the socket takes, and learning what became of each part of it.

use libcni::nl::{Batch, NlError, Socket};
use nix::errno::Errno;

use super::{Known, Report};
use crate::state::{Change, Leg, Links, Path, Step, Tables};

/// What is sent at once, in bytes: the socket's default buffer (`net.core.wmem_default`, 208 KiB) takes it.
const AT_ONCE_BYTES: usize = 120 * 1024;
/// So few at once that the verdicts on all of them surely have room in the socket.
const FEW: usize = 64;

type Outcomes = Vec<Result<(), NlError>>;

/// Sends the steps and takes in what was acknowledged. True if the kernel's answers cast doubt on what is known.
pub(super) fn all(
    sock: &mut Socket,
    known: &mut Known,
    steps: &[Step],
    before: Option<&Tables>,
    name: impl Fn(Option<usize>) -> String,
    report: &mut Report,
) -> Result<bool, NlError> {
    let mut doubt = false;
    let mut rest = steps;
    while !rest.is_empty() {
        let (batch, count) = pack(rest, known.links, usize::MAX);
        let (now, later) = rest.split_at_checked(count).unwrap_or((rest, &[]));
        let outcomes = match sock.run_all(&batch) {
            Ok(outcomes) => outcomes,
            Err(e) if e.is(Errno::ENOBUFS) => few_by_few(sock, now, known.links)?,
            Err(e) => return Err(e),
        };
        report.messages += now.len();
        for (step, outcome) in now.iter().zip(outcomes) {
            match outcome {
                Err(error) if !is_done(&step.change, &error) => {
                    doubt |= is_doubtful(&step.change, &error);
                    report.failed.push((name(step.peer), error));
                }
                _ => {
                    report.count(step, before);
                    known.tables.apply(&step.change);
                }
            }
        }
        rest = later;
    }
    Ok(doubt)
}

/// The first steps, as many as go into one send.
fn pack(steps: &[Step], links: Links, at_most: usize) -> (Batch, usize) {
    let mut batch = Batch::new();
    for step in steps.iter().take(at_most) {
        batch.push(step.change.message(links));
        if batch.size() >= AT_ONCE_BYTES {
            break;
        }
    }
    let count = batch.len();
    (batch, count)
}

/// Once more, because hundreds failed and some of the verdicts had no room. To do what is done already does no harm.
fn few_by_few(sock: &mut Socket, steps: &[Step], links: Links) -> Result<Outcomes, NlError> {
    let mut outcomes = Vec::with_capacity(steps.len());
    for few in steps.chunks(FEW) {
        outcomes.extend(sock.run_all(&pack(few, links, FEW).0)?);
    }
    Ok(outcomes)
}

/// Is what was to be deleted gone already?
fn is_done(change: &Change, error: &NlError) -> bool {
    change.is_removal()
        && [Errno::ENOENT, Errno::ESRCH]
            .iter()
            .any(|errno| error.is(*errno))
}

/// Does it say that something is not as it is known to be, rather than that a peer is out of reach?
fn is_doubtful(change: &Change, error: &NlError) -> bool {
    let by_object = |path: &Path| matches!(path.leg, Leg::Object(_));
    // Its next hop was there, or was made just before.
    matches!(change, Change::Route { path, .. } if by_object(path))
        || [Errno::ENODEV, Errno::ENXIO, Errno::ENETDOWN, Errno::ENOENT]
            .iter()
            .any(|errno| error.is(*errno))
}

// === impl Report ===

impl Report {
    fn count(&mut self, step: &Step, before: Option<&Tables>) {
        let had = |tables: &Tables| tables.has(&step.change);
        if step.change.is_removal() {
            self.removed += 1;
        } else if before.is_some_and(had) {
            self.repaired += 1;
        } else if step.instead {
            self.changed += 1;
        } else {
            self.added += 1;
        }
    }
}
