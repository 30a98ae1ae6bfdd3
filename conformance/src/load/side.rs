//! One directory of executables, with a node of its own: a thread that stays in it, told when its turn is.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};

use super::network::Network;
use super::round::{Job, Round};
use crate::node::Node;
use crate::residue::Moment;

/// It runs.
#[derive(Debug)]
pub(super) struct Side {
    dir: PathBuf,
    /// Dropped: come to an end.
    orders: Sender<()>,
    answers: Receiver<Result<Answer>>,
    rounds: Round,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) dir: PathBuf,
    pub(super) rounds: Round,
    /// What is there at the end and was not at the start.
    pub(super) residue: Vec<String>,
    /// What is gone.
    pub(super) missing: Vec<String>,
}

#[derive(Debug)]
enum Answer {
    Ready,
    Round(Round),
    End {
        residue: Vec<String>,
        missing: Vec<String>,
    },
}

// === impl Side ===

impl Side {
    /// Makes the node; comes back when it is ready.
    pub(super) fn start(
        dir: &Path,
        network: &Network,
        pods: usize,
        parallel: usize,
    ) -> Result<Side> {
        let plugins = dir.canonicalize()?;
        ensure!(
            plugins.join(&network.plugin).is_file(),
            "there is no {} in it",
            network.plugin
        );
        let (orders, inbox) = channel();
        let (outbox, answers) = channel();
        let network = network.clone();
        thread::Builder::new().spawn(move || {
            let done = live(&plugins, &network, (pods, parallel), &inbox, &outbox);
            // Nobody listens if the other side failed.
            let _ = outbox.send(done);
        })?;
        let mut side = Side {
            dir: dir.to_owned(),
            orders,
            answers,
            rounds: Round::default(),
        };
        match side.answer()? {
            Answer::Ready => Ok(side),
            other => Err(anyhow!("out of turn: {other:?}")),
        }
    }

    /// Its turn.
    pub(super) fn round(&mut self) -> Result<()> {
        // If it ended, its answer says why.
        let _ = self.orders.send(());
        if let Answer::Round(round) = self.answer()? {
            self.rounds.take_in(round);
        }
        Ok(())
    }

    /// No more turns.
    pub(super) fn end(self) -> Result<Outcome> {
        drop(self.orders);
        let answer = self.answers.recv().context("its thread ended")?;
        match answer.with_context(|| self.dir.display().to_string())? {
            Answer::End { residue, missing } => Ok(Outcome {
                dir: self.dir,
                rounds: self.rounds,
                residue,
                missing,
            }),
            other => Err(anyhow!("out of turn: {other:?}")),
        }
    }

    fn answer(&mut self) -> Result<Answer> {
        let answer = self.answers.recv().context("its thread ended")?;
        answer.with_context(|| self.dir.display().to_string())
    }
}

fn live(
    plugins: &Path,
    network: &Network,
    (pods, parallel): (usize, usize),
    orders: &Receiver<()>,
    answers: &Sender<Result<Answer>>,
) -> Result<Answer> {
    let pods: Vec<String> = (0..pods).map(|n| format!("p{n}")).collect();
    let node = Node::enter(plugins, &pods, false)?;
    node.sh(&network.setup).context("prepare the node")?;
    let job = |pods| Job {
        network,
        pods,
        parallel,
    };
    // The second one finds a cursor there, and puts it aside.
    for _ in 0..2 {
        job(pods.get(..1).unwrap_or_default()).run()?;
    }
    let before = Moment::now(&node)?;
    let _ = answers.send(Ok(Answer::Ready));
    for () in orders {
        let round = job(&pods).run()?;
        if answers.send(Ok(Answer::Round(round))).is_err() {
            break;
        }
    }
    let after = Moment::now(&node)?;
    let mut residue = before.left_over(&after);
    residue.retain(|line| !is_rewritten(line));
    Ok(Answer::End {
        residue,
        missing: before.missing(&after),
    })
}

/// A file of the plugins' own that was there before, as a cursor is: another content is not more of it.
fn is_rewritten(line: &str) -> bool {
    line.starts_with("file /var/lib/cni/") && line.contains(" (was ")
}
